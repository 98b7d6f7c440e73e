"""Every task in every precision of the network, through the real command: geometry is the reader's, whatever the network has."""

import pytest
import runs
import test_associative
import test_keypointnet
import test_mpii
import test_oct
import test_skeleton
import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision

from sampling_argmax_cuda.__main__ import main
from sampling_argmax_cuda.trainers.callbacks import RunFigures
from sampling_argmax_cuda.trainers.precision import keep_geometry

pytestmark = pytest.mark.written_memory

PRECISIONS = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64,
              "bf16-mixed": torch.float32}  # fmt: skip
ADVERSARY = ["--config", "adversarial", "--adversary.stacks=1", "--adversary.channels=8"]
EVERY_VIEW = ["--model.average=maps", "--model.scales=[1.0,2.0]"]
SMALL = ["--data.image_size=[32,32]", "--data.batch_size=2"]  # convolutions of float16 are slow on a CPU
RUNS = {  # the options of a task, and more of them
    "associative": (test_associative.options, [*ADVERSARY, "--model.scales=[1.0,2.0]"]),
    "coco": (runs.options, [*SMALL, *EVERY_VIEW]),
    "coco_rle": (runs.options, [*SMALL, "--objective=sampling_rle", "--objective.units=centered"]),
    "h36m": (runs.options, [*SMALL, "--model.volume=8", "--model.reduction=axes"]),
    "h36m_rle": (runs.options, [*SMALL, "--objective=rle", "--objective.units=centered", "--model.volume=8"]),
    "keypointnet": (test_keypointnet.options, []),
    "mpii": (test_mpii.options, [*ADVERSARY, *EVERY_VIEW]),
    "mtfl": (runs.options, [*SMALL, "--objective=direct"]),
    "oct": (test_oct.options, ["--model.ce_weight=0.1"]),
    "skeleton": (test_skeleton.options, []),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("plugin", [HalfPrecision("bf16-true"), HalfPrecision("16-true"), DoublePrecision(), Precision(),
                                    MixedPrecision("bf16-mixed", "cpu")], ids=lambda plugin: plugin.precision)  # fmt: skip
def test_steps_have_the_readers_numbers_and_torchs_dtype(plugin):
    keep_geometry(plugin)
    batch = {"a": torch.zeros(2), "b": [torch.zeros(2, dtype=torch.float64)]}
    assert plugin.convert_input(batch) is batch
    for step in (plugin.train_step_context, plugin.val_step_context, plugin.predict_step_context):
        with step():
            assert torch.tensor(0.1).dtype == torch.float32
            assert torch.is_autocast_enabled("cpu") == (plugin.precision == "bf16-mixed")


def check_batch(seen: set, trainer, module, batch, dataset) -> None:
    """The numbers of a batch are those of its samples, bit for bit, and the network has the precision that was asked for."""
    samples = torch.utils.data.default_collate([dataset[int(i)] for i in batch["index"]])
    for name, value in samples.items():
        if isinstance(value, torch.Tensor):
            assert batch[name].dtype == value.dtype and torch.equal(batch[name], value), name
    assert {p.dtype for p in module.parameters()} == {PRECISIONS[str(trainer.precision)]}
    assert torch.get_default_dtype() == torch.float32
    if getattr(module, "adversary", None) is not None:
        assert module.adversary.k.dtype == torch.float64
    seen.add(trainer.state.stage)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", RUNS)
def test_geometry_has_the_readers_precision(name, precision, data, tmp_path, monkeypatch):
    task, (options, more), seen = name.partition("_")[0], RUNS[name], set()
    monkeypatch.setattr(RunFigures, "on_train_batch_start", lambda self, trainer, module, batch, index:
                        check_batch(seen, trainer, module, batch, trainer.datamodule.train_data))  # fmt: skip
    monkeypatch.setattr(RunFigures, "on_validation_batch_start", lambda self, trainer, module, batch, index:
                        check_batch(seen, trainer, module, batch, trainer.datamodule.val_data))  # fmt: skip
    monkeypatch.setattr(RunFigures, "on_train_epoch_end", lambda *_: None)  # curves of numbers that have no precision
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1",
             f"--trainer.precision={precision}", *(["--model.optimizer=sgd"] if precision == "16-true" else []),
             "--trainer.enable_checkpointing=false"]  # fmt: skip
    assert main(["fit", *options(data / task, tmp_path, *more, *short, config=task)]) == 0
    assert len(seen) == 2 and list(tmp_path.glob("version_0/figures/epoch_0000_*.png"))
    numbers = runs.logged(tmp_path)
    for name in ("train/loss_epoch", "val/error"):
        assert torch.tensor(numbers.get(name, [0.0])).isfinite().all()


def test_float16_has_no_squares_to_divide_by(data, tmp_path, capsys):
    """An optimizer that divides by them takes a network to infinity in its first step."""
    options = test_mpii.options(data / "mpii", tmp_path, "--trainer.precision=16-true", "--model.optimizer=adamw")
    assert main(["fit", *options]) == 1
    assert "precision 16-true needs model.optimizer sgd" in capsys.readouterr().err
    assert runs.run("validate", *options, "--trainer.limit_val_batches=1") == 0
