import json
import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_training import bits, make_tiny_task, tiny_batches

from abaw_jax.errors import InputError
from abaw_jax.training import checkpoint
from abaw_jax.training.checkpoint import NotFinite, load_params, open_checkpoints, restore, save
from abaw_jax.training.optim import make_optimizer
from abaw_jax.training.partition import make_mesh
from abaw_jax.training.state import named_leaves
from abaw_jax.training.step import abstract_state

OPTIMIZER = make_optimizer(lr=1e-2, steps=20, weight_decay=0.1)


def fresh(shape=(1, 1, 1), task=None, optimizer=OPTIMIZER, ema_decay=0.9):
    mesh = make_mesh(shape, jax.devices()[: int(np.prod(shape))])
    return abstract_state(
        task or make_tiny_task(), optimizer, seed=1, batch=next(tiny_batches(0)), mesh=mesh,
        ema_decay=ema_decay,
    )  # fmt: skip


@pytest.fixture(scope="module")
def state():
    """A state in which no two arrays are alike."""
    state = fresh()[0]()
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: x if x.ndim == 0 else jnp.asarray(random.normal(size=x.shape), x.dtype), state
    )


def write(directory, state, steps=(1, 2, 3), **options):
    """Checkpoints at the given steps, each with its own step as a metric and in its params."""
    with open_checkpoints(directory, keep=9, **options) as manager:
        for step in steps:
            at = state.replace(
                step=jnp.int32(step),
                params=jax.tree.map(lambda x, s=step: x + s, state.params),
                ema=jax.tree.map(lambda x, s=step: x - s, state.ema),
            )
            save(manager, at, {"classes": ["a", "b"]}, {"score": float(step)})
        checkpoint.wait(manager)


def test_what_is_restored_is_what_was_saved(tmp_path, state):
    write(tmp_path, state, [5])
    with open_checkpoints(tmp_path) as manager:
        found, metadata = restore(manager, fresh()[1])
    expected = state.replace(
        step=jnp.int32(5),
        params=jax.tree.map(lambda x: x + 5, state.params),
        ema=jax.tree.map(lambda x: x - 5, state.ema),
    )
    assert bits(found) == bits(expected)
    assert jax.tree.structure(found) == jax.tree.structure(state)
    assert metadata["classes"] == ["a", "b"] and metadata["step"] == 5


def test_an_empty_folder_has_none(tmp_path):
    with open_checkpoints(tmp_path / "new" / "folder") as manager:
        assert restore(manager, fresh()[1]) is None


def test_any_mesh_restores_what_another_saved(tmp_path, state):
    expected = None
    for number, shape in enumerate([(2, 2, 2), (1, 2, 1), (1, 1, 1), (1, 4, 2)]):
        abstract = fresh(shape)[1]
        if expected is None:
            shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
            found = jax.device_put(state, shardings)
            expected = bits(found)
        else:
            with open_checkpoints(tmp_path) as manager:
                found, _ = restore(manager, abstract)
            assert bits({**vars(found), "step": state.step}) == bits(vars(state))
        for name, leaf in named_leaves(found).items():
            assert leaf.sharding == named_leaves(abstract)[name].sharding, name
        with open_checkpoints(tmp_path) as manager:
            save(manager, found.replace(step=jnp.int32(number + 1)), {})


# Of the data files, all: which of them hold what is read, and where, depends on how the writing
# threads took turns.
def truncate(step: pathlib.Path):
    for path in (step / "weights").rglob("d/*"):
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])


def flip(step: pathlib.Path):
    for path in (step / "optimizer").rglob("d/*"):
        data = bytearray(path.read_bytes())
        data[8::16] = bytes(byte ^ 64 for byte in data[8::16])
        path.write_bytes(data)


def empty_manifest(step: pathlib.Path):
    (step / "weights" / "manifest.ocdbt").write_bytes(b"")


def cut_metadata(step: pathlib.Path):
    path = step / "metadata" / "metadata"
    path.write_text(path.read_text()[:50])


def change_number(step: pathlib.Path):
    """Another number where nothing but the checksum can tell."""
    path = step / "metadata" / "metadata"
    value = json.loads(path.read_text())
    value["arrays"]["params/head/kernel"][2] ^= 1
    path.write_text(json.dumps(value))


def remove_data(step: pathlib.Path):
    for path in (step / "optimizer").rglob("d/*"):
        path.unlink()


@pytest.mark.parametrize(
    "damage", [truncate, flip, empty_manifest, cut_metadata, change_number, remove_data]
)
def test_a_damaged_newest_gives_the_one_before_and_a_warning(tmp_path, state, damage, caplog):
    write(tmp_path, state)
    damage(tmp_path / "3")
    with open_checkpoints(tmp_path) as manager, caplog.at_level(logging.WARNING):
        found, metadata = restore(manager, fresh()[1])
        assert metadata["step"] == int(found.step) == 2
        (warning,) = [r.getMessage() for r in caplog.records if r.name == checkpoint.__name__]
        assert str(tmp_path / "3") in warning and "\n" not in warning
        # The same step can be saved again.
        save(manager, found.replace(step=jnp.int32(3)), {})
    assert (tmp_path / "3.damaged").is_dir()
    with open_checkpoints(tmp_path) as manager:
        assert restore(manager, fresh()[1])[1]["step"] == 3


def test_all_damaged_is_an_error_not_a_fresh_start(tmp_path, state):
    write(tmp_path, state, [1, 2])
    for step in ("1", "2"):
        empty_manifest(tmp_path / step)
    with open_checkpoints(tmp_path) as manager, pytest.raises(InputError, match="all 2 .* damaged"):
        restore(manager, fresh()[1])


def test_another_architecture_is_refused_by_name_and_left_alone(tmp_path, state):
    write(tmp_path, state, [1])
    frozen = make_optimizer(lr=1, steps=1, frozen=lambda path: path.startswith("mlp"))
    with open_checkpoints(tmp_path) as manager:
        with pytest.raises(InputError, match=r"ema/head/bias is float32\(1,\), expected none"):
            restore(manager, fresh(ema_decay=None)[1])
        with pytest.raises(InputError, match="opt_state/.*mlp/fc1/bias is .*, expected none"):
            restore(manager, fresh(optimizer=frozen)[1])
        wider = fresh()[1]
        wider.params["head"]["kernel"] = jax.ShapeDtypeStruct((9, 1), jnp.float32)
        message = r"params/head/kernel is float32\(8, 1\), expected float32\(9, 1\)"
        with pytest.raises(InputError, match=message):
            restore(manager, wider)
    assert not list(tmp_path.glob("*.damaged"))


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, state):
    write(tmp_path, state, [1])
    bad = state.replace(step=jnp.int32(2), params=jax.tree.map(lambda x: x / 0, state.params))
    with open_checkpoints(tmp_path) as manager:
        with pytest.raises(NotFinite, match=r"step 2: params/.* not finite"):
            save(manager, bad, {})
        assert manager.all_steps() == [1]


def test_newest_and_best_are_kept(tmp_path, state):
    with open_checkpoints(tmp_path, keep=2, best="score") as manager:
        for step, score in enumerate([0.1, 0.9, None, 0.5, 0.4, None], 1):
            metrics = None if score is None else {"score": score}
            save(manager, state.replace(step=jnp.int32(step)), {}, metrics)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [2, 5, 6]


def test_load_params_needs_no_model(tmp_path, state):
    write(tmp_path, state)
    params, model_state, metadata = load_params(tmp_path)
    assert metadata["step"] == 3 and metadata["classes"] == ["a", "b"]
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves((params, model_state)))
    assert bits(params) == bits(jax.tree.map(lambda x: x - 3, state.ema))
    assert bits(model_state) == bits(state.model_state)
    assert load_params(tmp_path, 1)[2]["step"] == 1


def test_load_params_without_average_and_with_a_best(tmp_path, state):
    with open_checkpoints(tmp_path) as manager:
        for step in (1, 2):
            save(manager, state.replace(step=jnp.int32(step), ema=None), {"best": {"step": 1}})
    params, _, metadata = load_params(tmp_path)
    assert metadata["step"] == 1 and bits(params) == bits(state.params)


def test_load_params_names_what_is_wrong(tmp_path, state):
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        load_params(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not any"):
        load_params(tmp_path)
    write(tmp_path, state, [1])
    with pytest.raises(InputError, match=r"steps \[1\], not 7"):
        load_params(tmp_path, 7)
    change_number(tmp_path / "1")
    with pytest.raises(InputError, match=r"/1: checkpoint cannot be read \(checksum of params/he"):
        load_params(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot hold checkpoints"):
        open_checkpoints(tmp_path / "file" / "checkpoints")


def test_the_checksum_finds_one_changed_element_and_a_swap():
    values = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    sums = set()
    for change in [(), ((0, 0), 7), ((2, 3), 7)]:
        changed = values.copy()
        if change:
            changed[change[0]] = change[1]
        sums.add(int(checkpoint._inspect(jnp.asarray(changed))[0]))
    sums.add(int(checkpoint._inspect(jnp.asarray(values[::-1]))[0]))
    assert len(sums) == 4
