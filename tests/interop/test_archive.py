"""Models as safetensors and JSON."""

import builtins
import errno

import jax
import numpy as np
import pytest
import safetensors.numpy

from abaw_jax.errors import InputError
from abaw_jax.interop import archive
from abaw_jax.interop.archive import check_variables, content_hash, load_model, save_model

CONFIG = {"kind": "test", "classes": ["a", "b"]}


def variables():
    return {
        "params": {
            "blocks_0": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)},
            "scale": np.ones(3, np.float32),
        },
        "batch_stats": {"count": np.int32(3), "mask": np.array([True, False])},
    }


def test_round_trip_keeps_types_names_and_layout(tmp_path):
    given = variables()
    given["params"]["turned"] = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    save_model(tmp_path, jax.tree.map(np.asarray, given), CONFIG)
    found, config = load_model(tmp_path)
    assert config == CONFIG
    assert jax.tree.structure(found) == jax.tree.structure(given)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
        assert a.dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


def test_device_arrays_are_saved_as_they_are(tmp_path):
    save_model(tmp_path / "numpy", variables(), CONFIG)
    save_model(tmp_path / "jax", jax.tree.map(jax.numpy.asarray, variables()), CONFIG)
    assert content_hash(tmp_path / "numpy") == content_hash(tmp_path / "jax")


def test_content_hash_is_of_the_weights(tmp_path):
    save_model(tmp_path, variables(), CONFIG)
    before = content_hash(tmp_path)
    save_model(tmp_path, variables(), {**CONFIG, "kind": "other"})
    assert content_hash(tmp_path) == before
    changed = variables()
    changed["params"]["scale"][0] = 2
    save_model(tmp_path, changed, CONFIG)
    assert content_hash(tmp_path) != before
    with pytest.raises(InputError, match=r"none/model.safetensors: cannot be read"):
        content_hash(tmp_path / "none")


def test_loading_opens_no_pickle(tmp_path, monkeypatch):
    save_model(tmp_path, variables(), CONFIG)
    real = builtins.__import__

    def guarded(name, *rest):
        assert name not in ("pickle", "_pickle", "torch"), name
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", guarded)
    load_model(tmp_path)


def test_full_disk_leaves_the_old_model(tmp_path, monkeypatch):
    save_model(tmp_path, variables(), CONFIG)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    changed = variables()
    changed["params"]["scale"][0] = 2
    with pytest.raises(InputError, match=r"model.safetensors: cannot be written \(No space left"):
        save_model(tmp_path, changed, CONFIG)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_check_variables_names_what_differs():
    check_variables(variables(), variables(), "here")
    other = variables()
    other["params"]["scale"] = np.ones(4, np.float32)
    other["params"]["more"] = np.ones(1, np.float32)
    del other["batch_stats"]["mask"]
    with pytest.raises(InputError) as caught:
        check_variables(other, variables(), "here")
    message = str(caught.value)
    assert message.startswith("here: weights of another architecture: lacks batch_stats/mask; ")
    assert "has params/more too many" in message
    assert "params/scale is (4,), expected (3,)" in message


def test_check_variables_is_short_where_much_differs():
    many = {f"layer_{i}": np.zeros(1) for i in range(100)}
    with pytest.raises(InputError, match=r"and 97 more; ") as caught:
        check_variables({}, many, "here")
    assert len(str(caught.value)) < 200


def test_names_that_clash_are_refused(tmp_path):
    clash = {"a": np.zeros(1, np.float32), "a/b": np.zeros(1, np.float32)}
    (tmp_path / archive.WEIGHTS).write_bytes(safetensors.numpy.save(clash))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="model.safetensors: cannot be read"):
        load_model(tmp_path)
