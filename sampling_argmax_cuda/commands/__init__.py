"""The commands of ``sampling-argmax``, one file a command."""
