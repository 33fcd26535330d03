"""Encoders that learn AffectNet: the config, and what the stages make of the corpus's labels."""

import dataclasses
import os
import pathlib

import cv2
import jax
import ml_collections
import numpy as np
import pytest

from abaw_jax.data.records import IMAGE_SET, load_index
from abaw_jax.data.views import FACE
from abaw_jax.errors import InputError
from abaw_jax.evaluation.predictions import load_predictions
from abaw_jax.models.families import FAMILIES
from abaw_jax.recipe import Context
from abaw_jax.stages import extract, finetune, parts, prepare
from abaw_jax.stages.check import check_config, check_prepared
from abaw_jax.stages.views import predictions_folder
from abaw_jax.tracks import EXPR, VA
from abaw_jax.tracks.affectnet import AFFECTNET
from abaw_jax.training.partition import make_mesh
from configs import affectnet

EXPRESSIONS = (0, 1, 7, 7, 6, 9)  # two of contempt, which EXPR lacks, and one that is uncertain


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_a_config_of_its_own_pixels(family):
    config = affectnet.get_config(family).unlock()
    with pytest.raises(InputError, match="head_epochs: 3.0 on an encoder that nothing has trained"):
        check_config(config, make_mesh())
    config.finetune.head_epochs = 0.0
    check_config(config, make_mesh())
    assert config.encoder.family == family and config.name == f"affectnet-{family}"


def test_another_family_is_named():
    with pytest.raises(ValueError, match="'resnet' is no family; name one of efficientnet_b0, eff"):
        affectnet.get_config("resnet")
    assert affectnet.get_config().name == "affectnet-efficientnet_b0"


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("affectnet"), np.random.default_rng(0)
    (root / "Manually_Annotated_Images").mkdir()
    for name in ("training", "validation"):
        rows = []
        for i, expression in enumerate(EXPRESSIONS):
            image = f"{name}{i}.jpg"
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            assert cv2.imwrite(str(root / "Manually_Annotated_Images" / image), pixels)
            ratings = "0.5,-0.25" if expression < 8 else "-2,-2"
            rows.append(f"{image},0,0,-1,-1,,{expression},{ratings}\n")
        (root / f"{name}.csv").write_text("".join(rows))
    config = affectnet.get_config("efficientnet_small").unlock()
    config.corpus.root, config.finetune.head_epochs = str(root), 0.0
    mesh = make_mesh((1, 1, 1), jax.devices()[:1])
    workdir = tmp_path_factory.mktemp("run")
    context = Context(ml_collections.FrozenConfigDict(config), workdir, mesh)
    assert str(root) in prepare.inputs(context)
    assert prepare.run(context)["samples"] == 2 * len(EXPRESSIONS)
    check_prepared(context)
    return context


def test_its_images_are_a_video_that_files_are_named_by(context):
    """Nor are they smoothed, or seen by a sequence model."""
    for split in ("train", "validation"):
        index = load_index(context.folder("prepare") / "records", split)
        assert index.videos == (IMAGE_SET,)
    seen = []

    def predict(params, state, batches):
        for batch in batches:
            mean = batch["image"].mean((1, 2, 3), keepdims=True)[..., 0, 0].astype(np.float32)
            seen.append(mean[batch["mask"]])
            yield batch, {"features": mean.repeat(512, 1), "probabilities": mean.repeat(8, 1) / 255}

    config = ml_collections.ConfigDict(context.config.to_dict())
    config.extract.batch_size, config.ensemble.kinds = 4, ("box",)
    context = dataclasses.replace(context, config=ml_collections.FrozenConfigDict(config))
    count = extract._extract_split(context, FACE, "validation", predict, {"params": {}}, "encoder")
    found = load_predictions(predictions_folder(context, FACE) / "validation", EXPR)
    assert count == len(EXPRESSIONS) and found.keys() == {IMAGE_SET}
    np.testing.assert_array_equal(found[IMAGE_SET].values[:, :1], np.concatenate(seen) / 255)
    with pytest.raises(InputError, match="ensemble.kinds: .* images do not follow on one another"):
        check_prepared(context)


def test_a_list_that_is_mended_is_noticed(context):
    before, path = prepare.inputs(context), pathlib.Path(context.config.corpus.root, "training.csv")
    os.utime(path, ns=(0, 0))
    after = prepare.inputs(context)
    assert before.keys() == after.keys() and before[str(path)] != after[str(path)]


def test_eight_expressions_are_learnt_beside_valence_and_arousal(context):
    assert finetune.learnt(context) == [AFFECTNET, VA]
    assert finetune.scored(context) == [EXPR, VA]
    _, indices, labels = finetune.labelled(context, "train")
    np.testing.assert_array_equal(indices, np.arange(5))  # the uncertain one has no label at all
    np.testing.assert_array_equal(labels[indices, 0], EXPRESSIONS[:5])
    np.testing.assert_array_equal(labels[indices, 1:], [[0.5, -0.25]] * 5)
    _, _, labels = finetune.labelled(context, "validation")
    np.testing.assert_array_equal(labels[:, 0], [0, 4, -1, -1, 1, -1])  # EXPR's numbers


def test_the_ten_outputs_are_in_the_published_order(context):
    config = context.config
    task = parts.make_finetune_task(config, EXPR)
    image = {"image": jax.ShapeDtypeStruct((2, 48, 48, 3), np.uint8)}
    params, state = jax.eval_shape(task.init, jax.random.key(0), image)
    heads = [params[name]["kernel"].shape for name in ("head", "head_va")]
    assert heads == [(512, 8), (512, 2)]
    assert parts.output_classes(config.finetune, EXPR) == {
        "also": {"va": ["valence", "arousal"]}, "outputs": list(AFFECTNET.classes),
    }  # fmt: skip
    assert AFFECTNET.classes == (
        "Neutral", "Happiness", "Sadness", "Surprise", "Fear", "Disgust", "Anger", "Contempt",
    )  # fmt: skip
    outputs = jax.eval_shape(task.predict, params, state, image)
    assert outputs["probabilities"].shape == (2, EXPR.outputs)
    assert outputs["probabilities_va"].shape == (2, 2)
