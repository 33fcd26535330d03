"""Scenes: the background's statistics, k-means against scikit-learn, and the csv file."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from abaw_jax.errors import InputError
from abaw_jax.evaluation.scenes import (
    background_statistics,
    cluster_videos,
    kmeans,
    read_scenes,
    scene_weights,
    write_scenes,
)


def crop(background, face, size=64, noise=0, seed=0):
    """A face-coloured ellipse on a background."""
    y, x = (np.mgrid[:size, :size] * 2 + 1) / size - 1
    image = np.where((x * x + y * y <= 1)[..., None], face, background).astype(np.float64)
    image += noise * np.random.default_rng(seed).normal(size=image.shape)
    return np.clip(image, 1, 255).astype(np.uint8)


def test_only_the_background_counts():
    first = background_statistics([crop((10, 100, 200), (1, 2, 3))])
    others = [crop((10, 100, 200), face) for face in ((250, 99, 9), (7, 7, 7))]
    second = background_statistics(others)
    np.testing.assert_allclose(first, second, atol=1e-12)
    np.testing.assert_allclose(first[:3], np.array([10, 100, 200]) / 255)
    np.testing.assert_allclose(first[3:6], 0, atol=1e-7)
    bins = first[6:].reshape(3, 8)
    assert bins.argmax(axis=1).tolist() == [0, 3, 6] and bins.sum() == pytest.approx(3)


def test_statistics_are_those_of_all_pixels_joined():
    images = [crop((90, 120, 60), (200, 150, 120), 48, 20, s) for s in range(3)]
    y, x = (np.mgrid[:48, :48] * 2 + 1) / 48 - 1
    pixels = np.concatenate([i[x * x + y * y > 1] for i in images]) / 255
    found = background_statistics(images)
    np.testing.assert_allclose(found[:6], [*pixels.mean(0), *pixels.std(0)], rtol=1e-9)
    want = [np.histogram(c * 255, bins=8, range=(0, 256))[0] / len(c) for c in pixels.T]
    np.testing.assert_allclose(found[6:].reshape(3, 8), want, rtol=1e-12)


def test_the_fill_of_aligned_crops_is_left_out():
    image = crop((90, 120, 60), (200, 150, 120))
    filled = image.copy()
    filled[:, :6] = 0
    np.testing.assert_allclose(
        background_statistics([filled])[:3], background_statistics([image])[:3], rtol=1e-12
    )
    assert (background_statistics([np.zeros((8, 8, 3), np.uint8)]) == 0).all()


def test_what_is_no_crop_is_refused():
    with pytest.raises(InputError, match="without any crop"):
        background_statistics([])
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3)), np.zeros((8, 8, 4), np.uint8)):
        with pytest.raises(InputError, match="expected uint8"):
            background_statistics([bad])


@pytest.mark.parametrize("seed", range(4))
def test_kmeans_is_as_tight_as_scikit_learns(seed):
    points = np.random.default_rng(seed).normal(size=(80, 5))
    centres = kmeans(points, 4, seed)
    away = ((points[:, None] - centres) ** 2).sum(-1)
    peer = KMeans(4, n_init=10, random_state=0).fit(points)
    assert away.min(1).sum() <= 1.02 * peer.inertia_
    # A fixed point: each centre is the mean of what is nearest to it.
    for s in range(4):
        np.testing.assert_allclose(centres[s], points[away.argmin(1) == s].mean(0), atol=1e-9)
    first = [int(np.argmax(away.argmin(1) == s)) for s in range(4)]
    assert first == sorted(first)
    np.testing.assert_array_equal(kmeans(points, 4, seed), centres)


def test_kmeans_with_as_many_centres_as_points_and_more():
    points = np.array([[0.0], [1.0], [1.0], [5.0]])
    assert kmeans(points, 3).tolist() == [[0], [1], [5]]
    assert kmeans(points, 1).tolist() == [[1.75]]
    for clusters in (0, 4):
        with pytest.raises(InputError, match=f"{clusters} scenes of 3 different videos"):
            kmeans(points, clusters)


SCENES = {"kitchen": (200, 180, 150), "street": (90, 100, 120), "studio": (30, 160, 60)}


def described(videos=24):
    found, truth = {}, {}
    for v in range(videos):
        scene = list(SCENES)[v % 3]
        images = [crop(SCENES[scene], (200, 150, 120), 32, 15, 100 * v + i) for i in range(4)]
        found[f"v{v:02d}"], truth[f"v{v:02d}"] = background_statistics(images), scene
    return found, truth


def test_backgrounds_are_told_apart_whatever_the_faces_and_the_order():
    features, truth = described()
    scenes = cluster_videos(features, 3)
    shares = scenes.probabilities(features)
    best = {v: max(p, key=p.get) for v, p in shares.items()}
    assert len({(truth[v], best[v]) for v in truth}) == 3 and best["v00"] == "scene1"
    assert all(sum(p.values()) == pytest.approx(1) for p in shares.values())
    assert all(max(p.values()) > 0.8 for p in shares.values())
    turned = dict(reversed(features.items()))
    assert cluster_videos(turned, 3).probabilities(turned) == shares
    # A video that was not clustered falls to the scene it resembles; one in between to neither.
    new = background_statistics([crop(SCENES["street"], (9, 9, 9), 40, 15, 7)])
    between = (features["v00"] + features["v01"]) / 2
    found = scenes.probabilities({"new": new, "between": between})
    assert max(found["new"], key=found["new"].get) == best["v01"]
    assert max(found["between"].values()) < max(shares["v00"].values())


def test_descriptions_that_cannot_be_clustered_are_refused():
    with pytest.raises(InputError, match="expected one \\(D,\\)"):
        cluster_videos({"a": np.zeros(3), "b": np.zeros(4)}, 2)
    with pytest.raises(InputError, match="expected one \\(D,\\)"):
        cluster_videos({}, 2)
    with pytest.raises(InputError, match="video b: description is not finite"):
        cluster_videos({"a": np.zeros(3), "b": np.array([0, np.nan, 1])}, 2)
    with pytest.raises(InputError, match="2 scenes of 1 different"):
        cluster_videos({"a": np.ones(3), "b": np.ones(3)}, 2)


def test_the_file_comes_back(tmp_path):
    features, _ = described(6)
    shares = cluster_videos(features, 3).probabilities(features)
    write_scenes(tmp_path / "s.csv", shares)
    found = read_scenes(tmp_path / "s.csv")
    assert list(found) == sorted(shares)
    for video, scenes in shares.items():
        assert found[video] == pytest.approx(scenes, abs=1e-5)


def test_a_given_list(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes(b"\xef\xbb\xbfvideo,scene\r\na,day\r\nb,night\r\n")
    assert read_scenes(path) == {"a": {"day": 1}, "b": {"night": 1}}
    path.write_text("video,scene,probability\na,day,0.25\nb,night,1\na,night,0.25\n")
    found = read_scenes(path)
    assert found == {"a": {"day": 0.5, "night": 0.5}, "b": {"night": 1}}
    weights = scene_weights(("a", "b"), ("x", "y", "z"), {"x": "day", "z": "night"}, found)
    np.testing.assert_allclose(weights, [[0.5, 0], [1, 1], [0.5, 1]])


@pytest.mark.parametrize(
    "text, message",
    [
        ("video,scene,probability\na,day,1.5\n", ":2: probability '1.5'; expected 0 .. 1"),
        ("video,scene,probability\na,day,nan\n", ":2: probability 'nan'"),
        ("video,scene,probability\na,day,much\n", ":2: probability 'much'"),
        ("video,scene,probability\na,day,1\na,day,0\n", ":3: a, day stands here again"),
        ("video,scene\na,day\na,night\n", ":3: a second scene of a; add a column"),
        ("video,scene,probability\na,day,0\n", "probabilities of a are all 0"),
        ("scene,video\nday,a\n", ":1: header 'scene,video'; expected video,scene[,probability]"),
    ],
)
def test_bad_files_are_refused_with_their_line(tmp_path, text, message):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_scenes(path)
    assert str(error.value).startswith(str(path)) and message in str(error.value)
