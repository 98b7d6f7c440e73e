"""What labelling tools write besides COCO, one file a tool, and how it becomes a folder of COCO key points."""
