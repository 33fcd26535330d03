"""Values of a config that cannot be are named, before any work."""

import ml_collections
import pytest

from abaw_jax.errors import InputError
from abaw_jax.stages.check import check_config
from abaw_jax.training.partition import make_mesh
from configs import au, emi, expr, va


@pytest.fixture
def config():
    return expr.get_config("tiny").unlock()


@pytest.mark.parametrize(
    ("count", "epochs", "named"),
    [
        (3, 1.0, "frozen_blocks: 3; expected 0 to config.encoder.depth = 2"),
        (-1, 1.0, "frozen_blocks: -1; expected 0 to"),
        (1, 0.0, "frozen_blocks: 1 blocks that nothing has trained"),
    ],
)
def test_impossible_numbers_of_frozen_blocks_are_named(config, count, epochs, named):
    config.finetune.frozen_blocks, config.pretrain.epochs = count, epochs
    with pytest.raises(InputError, match=f"^config.finetune.{named}"):
        check_config(config, make_mesh())


def test_a_limit_of_cleaning_that_cannot_be_is_named(config):
    config.corpus.clean.min_side = -1
    with pytest.raises(InputError, match=r"^config.corpus: clean.min_side: -1; expected 0"):
        check_config(config, make_mesh())


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("encoder.dtype", "float61", "one of float32, bfloat16"),
        ("encoder.heads", 5, "multiple of config.encoder.heads = 5"),
        ("encoder.heads", 0, "config.encoder.width"),
        ("encoder.width", 34, "multiple of 4"),
        ("encoder.patch_size", 5, "multiple of config.encoder.patch_size = 5"),
        ("image.mean", (0.5, 0.5), "expected 3 numbers"),
        ("pretrain.mask_ratio", 1.0, "below 1"),
        ("finetune.dropout", 1.5, "0 up to below 1"),
        ("sequence.dropout", 1.0, "0 up to below 1"),
        ("sequence.feature_dropout", -0.5, "0 up to below 1"),
        ("pretrain.accumulate", 0, "at least 1"),
        ("pretrain.crop_scale", (0.9, 0.1), "rising order"),
        ("finetune.pooling", "max", "one of mean, cls"),
        ("finetune.class_weights", "inverze", "one of none, inverse, inverse_sqrt"),
        ("finetune.batch_size", 0, "at least 1"),
        ("finetune.batch_size", 12, "multiple of 8"),
        ("finetune.evaluations", 0, "at least 1"),
        ("extract.batch_size", 12, "multiple of 8"),
        ("sequence.positions", "rope", "one of none, sincos, alibi"),
        ("sequence.activation", "tanh", "one of relu, gelu"),
        ("sequence.stride", 0, "at least 1"),
        ("sequence.stride", 33, "at most config.sequence.length = 32, or frames would be left out"),
        ("sequence.head", "first", "one of frames, last"),
        ("sequence.mask_unit", "pixels", "one of frames, values"),
        ("sequence.mask_rate", 1.0, "below 1"),
        ("sequence.patience", -1, "at least 0"),
        ("sequence.shift", -1, "at least 0"),
        ("sequence.head_width", 0, "at least 1"),
        ("sequence.class_weights", "1,2,3", "expected 8 numbers of at least 0"),
        ("sequence.depth", -1, "at least 0"),
        ("sequence.depth", 0, "config.sequence.positions: 'alibi' without an encoder"),
        ("sequence.tcn_kernel", 0, "at least 1"),
        ("sequence.tcn", (8, 0), "widths of at least 1, or ()"),
        ("sequence.join", (8.0, 8), "widths of at least 1, or ()"),
        ("sequence.join", (8,), "(8,) has no effect: two dense layers with nothing between"),
        ("ensemble.kinds", ("box", "triangle"), "triangle"),
        ("ensemble.gaps", "spline", "spline"),
        ("ensemble.match", True, "EXPR predicts classes"),
        ("ensemble.search_thresholds", True, "EXPR is not decided by thresholds"),
    ],
)
def test_impossible_values_are_named(config, path, value, named):
    section, key = path.split(".")
    with config.ignore_type():
        config[section][key] = value
    with pytest.raises(InputError) as caught:
        check_config(config, make_mesh())
    message = str(caught.value)
    assert named in message and "\n" not in message
    assert section in message or path == "pretrain.crop_scale"


@pytest.mark.parametrize(
    ("track", "key", "value", "named"),
    [
        (va, "kinds", ("box", "majority"), "majority counts votes for one class; VA has no such"),
        (au, "kinds", ("majority",), "AU has no such"),
        (va, "search_thresholds", True, "VA is not decided by thresholds"),
        (au, "match", True, "AU predicts classes, whose labels have no mean"),
    ],
)
def test_decisions_that_a_track_cannot_take_are_named(track, key, value, named):
    made = track.get_config("tiny").unlock()
    made.ensemble[key] = value
    with pytest.raises(InputError, match=rf"^config\.ensemble: .*{named}"):
        check_config(made, make_mesh())


@pytest.mark.parametrize(
    ("module", "changes", "named"),
    [
        (expr, {"width": 64}, "width: 64; expected 32, config.encoder.width, or .*project set to"),
        (expr, {"tcn": (16, 8)}, "width: 32; expected 8, the last of config.sequence.tcn, or"),
        (expr, {"join": (16, 8)}, "width: 32; expected 8, the last of config.sequence.join, or"),
        (expr, {"modalities": ("face", "sound")}, "project: False with several modalities"),
        (emi, {"shift": 8}, "shift: 8: a window of EMI is a whole clip; expected 0"),
        (emi, {"head": "last"}, "head: 'last': labels of EMI are of clips, not of a last frame"),
    ],
)
def test_sequence_parts_that_do_not_go_together_are_named(module, changes, named):
    made = module.get_config("tiny").unlock()
    made.sequence.update(modalities=("face",), project=False)
    check_config(made, make_mesh())  # as wide as the encoder
    made.sequence.update(changes)
    with pytest.raises(InputError, match=rf"^config\.sequence\.{named}"):
        check_config(made, make_mesh())


@pytest.mark.parametrize(
    ("track", "section", "changes", "named"),
    [
        (expr, "sequence", {"model": "lstm"}, "sequence.model: 'lstm'; expected one of transf"),
        (expr, "sequence", {"model": "gru"}, "sequence.model: 'gru': .* labels of EXPR are of f"),
        (emi, "sequence", {"join": (8, 8)}, r"sequence.join: \(8, 8\) has no effect with .*gru"),
        (emi, "sequence", {"model": "transformer"}, "extract.steps.sound: .* face's frames; leave"),
        (expr, "sequence", {"model": "frames", "tcn": (8,)}, r"sequence.tcn: \(8,\) has no effect"),
        (expr, "sequence", {"model": "frames", "head": "last"}, "sequence.head: 'last' with .*fra"),
        (expr, "sequence", {"head_width": 0}, "sequence.head_width: 0; expected at least 1"),
        (expr, "sequence", {"every": 2}, "sequence.every: 2: labels of EXPR are of frames"),
        (emi, "sequence", {"every": 0}, "sequence.every: 0; expected at least 1"),
        (emi, "sequence", {"model": "tokens", "width": 7}, "sequence.width: 7; expected a mult"),
        (emi, "extract", {"steps": {"sound": 8}}, "extract.steps: .* no number of steps for words"),
        (emi, "extract", {"steps": {"face": 8}}, "extract.steps.face: has no time axis of its own"),
        (emi, "extract", {"steps": {"sound": 0}}, "extract.steps.sound: 0; expected at least 1"),
    ],
)
def test_models_that_cannot_be_are_named(track, section, changes, named):
    made = track.get_config("fuxi,tiny" if track is emi else "tiny").unlock()
    if "steps" in changes:
        changes = {"steps": ml_collections.ConfigDict(changes["steps"])}
        del made.extract["steps"]
    made[section].update(changes)
    with pytest.raises(InputError, match=rf"^config\.{named}"):
        check_config(made, make_mesh())


def test_a_rate_by_layer_is_for_encoders_of_images(config):
    config.sequence.optimizer.layer_decay = 0.8
    with pytest.raises(InputError, match="^config.sequence.optimizer.layer_decay: 0.8; expected 1"):
        check_config(config, make_mesh())


@pytest.mark.parametrize("arg", ["tiny", "tiny,together"])
def test_a_loss_of_whole_windows_is_none_of_a_last_frame(arg):
    made = (va if arg == "tiny" else expr).get_config(arg).unlock()
    (made.sequence if arg == "tiny" else made.sequence.also.va).loss = "ccc_sequence"
    check_config(made, make_mesh())
    made.sequence.head = "last"
    with pytest.raises(InputError, match="^config.sequence: loss ccc_sequence: of one frame"):
        check_config(made, make_mesh())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "sgdd"}, "optimizer: 'sgdd'"),
        ({"schedule": "linear"}, "schedule: 'linear'"),
        ({"period_epochs": -1.0}, "optimizer.period_epochs: -1.0"),
        ({"schedule": "constant", "period_epochs": 2.0}, ".*: 2.0 with schedule 'constant'"),
        ({"schedule": "step"}, "optimizer.period_epochs: 0.0 with schedule 'step'"),
        ({"momentum": 0.9}, "optimizer: 'momentum' is too many"),
    ],
)
def test_optimizers_that_cannot_be_are_named(config, changes, named):
    config.sequence.optimizer.update(changes)
    with pytest.raises(InputError, match=rf"^config.sequence: {named}.*; expected"):
        check_config(config, make_mesh())
