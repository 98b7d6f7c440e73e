"""The page that ``--help`` of a training command prints: what the task reads, in groups, and Lightning's options folded."""

from argparse import SUPPRESS
from inspect import signature

from lightning.pytorch.cli import LightningArgumentParser

from ..trainers.objective_module import ObjectiveModule
from ..trainers.trained_module import TrainedModule

# What most runs say to Lightning's trainer; --help_all has the others.
TRAINER = ("default_root_dir", "max_epochs", "max_steps", "max_time", "accelerator", "devices", "num_nodes", "strategy",
           "precision", "accumulate_grad_batches", "gradient_clip_val", "check_val_every_n_epoch", "val_check_interval",
           "limit_train_batches", "limit_val_batches", "overfit_batches", "logger", "enable_progress_bar")  # fmt: skip


def _title(module: type, option: str) -> str:
    """The group of an option of a module: where it is declared, or that it may change whenever a network is evaluated."""
    if f"model.{option}" in module.free - TrainedModule.free:
        return "evaluation"
    owners = [kind for kind in module.__mro__ if "__init__" in vars(kind) and option in signature(kind).parameters]
    return "optimisation" if owners and owners[-1] in (TrainedModule, ObjectiveModule) else "network"


def _move(parser: LightningArgumentParser, action, group) -> None:
    for other in parser._action_groups:
        if action in other._group_actions:
            other._group_actions.remove(action)
    group._group_actions.append(action)


def arrange(parser: LightningArgumentParser, module: type, everything: bool) -> None:
    """Put the options of the module into groups and leave out, unless everything is asked for, those that few runs say."""
    groups = {title: parser.add_argument_group(title) for title in ("network", "optimisation", "evaluation")}
    linked = parser._links_group._group_actions if hasattr(parser, "_links_group") else []
    for action in [action for action in parser._actions if action not in linked]:
        part, _, option = action.dest.partition(".")
        if part == "model" and option and "." not in option:
            _move(parser, action, groups[_title(module, option)])
        elif part == "trainer" and option.partition(".")[0] not in TRAINER and not everything:
            action.help = SUPPRESS
