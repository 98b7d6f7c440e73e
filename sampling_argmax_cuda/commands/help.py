"""The page that ``--help`` of a training command prints: what the task reads, in groups, and Lightning's options folded."""

import argparse
import re
import shutil
from collections.abc import Collection
from inspect import signature

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from ..trainers.objective_module import ObjectiveModule
from ..trainers.trained_module import TrainedModule

# What runs say most often to Lightning's trainer, in a line each; --help_all has Lightning's own words for all of its options.
TRAINER = {
    "default_root_dir": "folder of the run: checkpoints, logs, figures",
    "max_epochs": "epochs of training, >= 1; -1 for no end",
    "max_steps": "steps of training, >= 1; -1 for no end",
    "max_time": "longest time of training, DD:HH:MM:SS",
    "accelerator": "cpu, gpu or auto",
    "devices": "processes of this machine, >= 1, or auto",
    "num_nodes": "machines of the run, >= 1",
    "strategy": "how processes work together, as ddp; auto",
    "precision": "32-true, bf16-mixed, 16-mixed, bf16-true, 16-true or 64-true; null for 32-true",
    "accumulate_grad_batches": "batches whose gradients make one step, >= 1",
    "gradient_clip_val": "longest gradient of all parameters together, > 0; null for no limit",
    "check_val_every_n_epoch": "epochs from one validation to the next, >= 1",
    "val_check_interval": "batches, or the share of an epoch, from one validation to the next",
    "limit_train_batches": "batches of an epoch, or their share",
    "limit_val_batches": "batches of a validation, or their share",
    "overfit_batches": "train on the same so many batches again and again; 0 for all",
    "logger": "false to log nothing; null for CSV and TensorBoard",
    "enable_progress_bar": "show how far an epoch is",
}
OWN_WORDS = {
    **{f"trainer.{name}": text for name, text in TRAINER.items()},
    "ckpt_path": "a checkpoint to go on from, or to evaluate: a file, or last or best of the run",
    "seed_everything": "seed of the first weights, >= 0",
}
ORDER = ("objective", "adversary", "network", "optimisation", "evaluation", "data", "trainer")


class Page(DefaultHelpFormatter):
    """Lines of a page's width; the trainer's options without their types."""

    def __init__(self, prog: str, **kwargs) -> None:
        width = shutil.get_terminal_size((120, 0)).columns
        super().__init__(prog, **{"max_help_position": 36, "width": width, **kwargs})

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.help == OWN_WORDS.get(action.dest):
            return f"{action.help} (default: %(default)s)"
        text = re.sub(r":\w+:`\.?([^`]*)`", r"\1", super()._get_help_string(action))
        return text.replace("``", "")


def _title(module: type, option: str) -> str:
    """The group of an option of a module: where it is declared, or that it may change whenever a network is evaluated."""
    if f"model.{option}" in module.free - TrainedModule.free:
        return "evaluation"
    owners = [kind for kind in module.__mro__ if "__init__" in vars(kind) and option in signature(kind).parameters]
    return "optimisation" if owners and owners[-1] in (TrainedModule, ObjectiveModule) else "network"


def _move(parser: LightningArgumentParser, action: argparse.Action, group) -> None:
    for other in parser._action_groups:
        if action in other._group_actions:
            other._group_actions.remove(action)
    group._group_actions.append(action)


def arrange(parser: LightningArgumentParser, module: type, unused: Collection[str], everything: bool) -> None:
    """Put the options into groups without those that are not used, and leave out those that few runs say, unless asked for."""
    parser._action_groups[-1].title = "checkpoint"
    groups = {title: parser.add_argument_group(title) for title in ("network", "optimisation", "evaluation")}
    groups |= {
        part: parser.groups[part] for part in ("objective", "adversary", "data", "trainer") if part in parser.groups
    }
    linked = parser._links_group._group_actions if hasattr(parser, "_links_group") else []
    for action in parser._actions:
        part, _, option = action.dest.partition(".")
        if action in linked or action.dest in unused or (not option and part in parser.groups):
            action.help = argparse.SUPPRESS  # a part as a whole comes from a config
        elif part == "model":
            _move(parser, action, groups[_title(module, option)])
        elif action.dest in OWN_WORDS and not everything:
            action.help = OWN_WORDS[action.dest]
        elif part in ("trainer", "weights_only", "print_config") and not everything:
            action.help = argparse.SUPPRESS
    for title, group in groups.items():
        group.title = title
    groups["trainer"].title = "trainer (Lightning's; --help_all has all of its options)"
    order = [groups[title] for title in ORDER if title in groups]
    parser._action_groups[:] = [group for group in parser._action_groups if group not in order] + order
