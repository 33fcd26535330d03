"""The ensemble as people call it: what it writes and prints, and every refusal."""

import json
import subprocess
import sys

import numpy as np
import pytest

from abaw_jax import score
from abaw_jax.ensemble import main
from abaw_jax.evaluation.predictions import load_predictions, save_prediction
from abaw_jax.tracks import AU, EMI, EXPR

VIDEOS = {"v1_left": 80, "v1_right": 60, "28-30-1280x720-4": 75, "v2": 90, "v3": 70, "v4": 66}
NOISE = {"audio": 1.6, "face": 1.1, "body": 1.3}


@pytest.fixture
def case(tmp_path):
    """Annotations of six videos, each with the row that has no frame, and three members; the member
    'face' has a video more."""
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    for video, frames in {**VIDEOS, "test": 20}.items():
        rows = np.repeat(rng.integers(-1, 8, frames // 5 + 1), 5)[:frames]
        if video != "test":
            text = "\n".join(map(str, [*rows, 3]))
            (tmp_path / "a" / f"{video}.txt").write_text(",".join(EXPR.classes) + f"\n{text}\n")
        for name, noise in NOISE.items():
            if video == "test" and name != "face":
                continue
            logits = np.eye(8)[rows] + noise * rng.normal(size=(frames, 8))
            values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            save_prediction(tmp_path / name, video, np.arange(1, frames + 1), values, EXPR.classes)
    return tmp_path


def call(capsys, *arguments):
    status = main(["ensemble", *map(str, arguments)])
    return status, *capsys.readouterr()


def usual(root, *more):
    members = [f"{name}={root / name}" for name in NOISE]
    flags = ["--track=EXPR", "--annotations", root / "a", "--output", root / "out"]
    return ["--predictions", *members, *flags, *more]


def record(capsys, *arguments):
    status, out, err = call(capsys, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out.splitlines()[-1]), out


def score_of(capsys, folder, annotations, *more):
    flags = [f"--predictions={folder}", f"--annotations={annotations}", "--json", *more]
    assert score.main(["score", "--track=EXPR", *flags]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("method", ["average", "weights", "rank", "stacking", "vote"])
def test_what_is_written_scores_as_printed(case, capsys, method):
    found, out = record(capsys, *usual(case, "--method", method))
    scored = score_of(capsys, case / "out" / "predictions", case / "a")
    assert found["scores"]["tuned"] == scored["score"]
    assert found["score"] == found["scores"]["cross_validated"] == found["metrics"]["macro_f1"]
    for key in ("frames", "last_rows", "split_hash"):
        assert found[key] == scored[key]
    assert json.loads((case / "out" / "ensemble.json").read_text()) == found
    assert f"EXPR macro_f1 {found['score']:.4f} by {method}, cross-validated" in out
    for name in NOISE:
        alone = score_of(capsys, case / name, case / "a")
        assert found["scores"]["members"][name]["score"] == alone["score"]
    assert found["folds"]["v1_left"] == found["folds"]["v1_right"]
    assert found["folds_by"] == "recording"
    assert sorted(found["folds"]) == sorted(VIDEOS) and len(found["scores"]["folds"]) == 5


def test_videos_without_annotations_are_combined_too(case, capsys):
    found, _ = record(capsys, *usual(case, "--method=average"))
    written = load_predictions(case / "out" / "predictions", EXPR)
    assert sorted(written) == sorted([*VIDEOS, "test"])
    # One member alone has it: what it says goes through.
    alone = load_predictions(case / "face", EXPR)["test"]
    np.testing.assert_allclose(written["test"].values, alone.values, atol=1e-6)
    assert found["missing"]["audio"] == {"videos": 1, "frames": 0, "filled": 0}
    assert found["missing"]["face"] == {"videos": 0, "frames": 0, "filled": 0}


def test_weights_are_on_the_simplex_and_every_method_is_compared(case, capsys):
    found, out = record(capsys, *usual(case, "--compare", "--folds=3"))
    assert found["method"] == "weights" and found["members"] == ["audio", "body", "face"]
    weights = np.array(found["coefficients"])
    assert weights.shape == (3, 8) and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-9)
    methods = found["scores"]["methods"]
    assert list(methods) == ["weights", "average", "rank", "stacking", "vote"]
    assert methods["weights"]["cross_validated"] == found["score"]
    assert methods["average"]["tuned"] == methods["average"]["cross_validated"]
    assert "average (nothing tuned)" in out and "lacks videos" in out
    assert set(found["folds"].values()) == {0, 1, 2}


def test_a_stored_ensemble_is_used_on_other_videos(case, capsys):
    record(capsys, *usual(case, "--method=stacking"))
    members = [f"{name}={case / name}" for name in reversed(NOISE)]
    found, out = record(
        capsys,
        *("--predictions", *members, "--track=EXPR", "--output", case / "again"),
        *("--combination", case / "out" / "ensemble.json"),
    )
    assert "7 videos written" in out and found["method"] == "stacking" and "score" not in found
    for video in [*VIDEOS, "test"]:
        first, second = (case / d / "predictions" / f"{video}.npz" for d in ("out", "again"))
        assert first.read_bytes() == second.read_bytes()


def test_persons_given_folds_and_scenes(case, capsys):
    people = "\n".join(f"{v},{'p' if v in ('v2', 'v3') else v}" for v in VIDEOS)
    (case / "persons.csv").write_text(f"video,person\n{people}\n")
    found, _ = record(capsys, *usual(case, "--method=average", f"--persons={case / 'persons.csv'}"))
    assert found["folds"]["v2"] == found["folds"]["v3"] and found["folds_by"] == "person"
    folds = "\n".join(f"{v},{int(v > 'v2')}" for v in VIDEOS)
    (case / "folds.csv").write_text(f"video,fold\n{folds}\n")
    found, _ = record(capsys, *usual(case, "--method=average", f"--fold_file={case / 'folds.csv'}"))
    assert found["folds"] == {v: int(v > "v2") for v in VIDEOS} and found["folds_by"] == "given"
    scenes = "\n".join(f"{v},{'day' if v < 'v2' else 'night'}" for v in [*VIDEOS, "test"])
    (case / "scenes.csv").write_text(f"video,scene\n{scenes}\n")
    of_member = ("--member_scene=face=day", "--member_scene=body=night")
    more = ("--method=scenes", f"--scenes={case / 'scenes.csv'}", *of_member)
    found, _ = record(capsys, *usual(case, *more))
    written, face, audio = (
        load_predictions(case / d, EXPR) for d in ("out/predictions", "face", "audio")
    )
    want = (face["v1_left"].values + audio["v1_left"].values) / 2
    np.testing.assert_allclose(written["v1_left"].values, want, atol=1e-6)
    assert found["scenes"] == {"face": "day", "body": "night"}


def test_missing_frames_and_videos_of_members(case, capsys):
    (case / "audio" / "v4.npz").unlink()
    p = load_predictions(case / "body", EXPR)["v2"]
    save_prediction(case / "body", "v2", p.frames[10:-5], p.values[10:-5], EXPR.classes)
    found, _ = record(capsys, *usual(case, "--method=average"))
    assert found["missing"]["audio"] == {"videos": 2, "frames": 0, "filled": 0}
    assert found["missing"]["body"] == {"videos": 1, "frames": 15, "filled": 0}
    filled, _ = record(capsys, *usual(case, "--method=average", "--gaps=hold"))
    # With a rule every annotation row has a value, the last one too.
    assert filled["missing"]["body"]["filled"] == 15 + len(VIDEOS)
    assert filled["last_rows"] == 0 and filled["frames"] == found["frames"] + len(VIDEOS)
    scored = score_of(capsys, case / "out" / "predictions", case / "a")
    assert scored["score"] == filled["scores"]["tuned"]


def test_frames_that_no_member_has(case, capsys):
    for name in NOISE:
        p = load_predictions(case / name, EXPR)["v3"]
        save_prediction(case / name, "v3", p.frames[:-20], p.values[:-20], EXPR.classes)
    status, out, err = call(capsys, *usual(case))
    assert (status, out) == (2, "") and err.count("\n") == 1 and "of v3, which is labelled" in err
    assert not (case / "out").exists()
    assert call(capsys, *usual(case, "--method=average", "--gaps=hold"))[0] == 0


@pytest.mark.parametrize(
    "change, message",
    [
        (["--predictions", "more={root}/none"], "none: cannot be read"),
        (["--predictions", "more={root}/a"], "holds no <video>.npz"),
        (["--predictions", "face={root}/face"], "face is given twice"),
        (["--predictions", "face"], "'face'; expected NAME=DIR"),
        (["more"], "unexpected argument 'more'"),
        (["--method=mean"], "average|weights"),
        (["--method=vote", "--track=VB"], "track"),
        (["--method=scenes"], "needs --scenes and --member_scene"),
        (["--search_thresholds"], "--search_thresholds: EXPR is not decided by thresholds"),
        (["--combination=x.json"], "one of --annotations and --combination"),
        (["--folds=1"], "folds"),
        (["--folds=2"], "--method=weights needs 3 folds at least, and these are 2"),
        (["--folds=3", "--fold_file=x.csv"], "one of --folds and --fold_file"),
        (["--fold_file={root}/x.csv"], "x.csv: cannot be read"),
        (["--split=Train_Set", "--annotations={root}/face"], "neither Train_Set"),
        (["--wrong=1"], "wrong"),
        (["--output="], "--output is missing"),
        (["--track="], "track"),
    ],
)
def test_bad_flags_give_one_line_and_write_nothing(case, capsys, change, message):
    status, out, err = call(capsys, *usual(case), *(c.format(root=case) for c in change))
    assert (status, out) == (2, "") and err.count("\n") == 1 and message in err
    assert not (case / "out").exists()


def test_bad_members_are_named(case, capsys):
    video = case / "body" / "v2.npz"
    good = video.read_bytes()
    arrays = dict(np.load(video))

    def refused(message, **changes):
        np.savez(video, **{**arrays, **changes})
        status, out, err = call(capsys, *usual(case))
        assert (status, out) == (2, "") and err.count("\n") == 1 and message in err
        assert str(video) in err

    bad = arrays["values"].copy()
    bad[3, 2] = np.nan
    refused("frame 4 has a value that is not finite", values=bad)
    bad[3, 2] = np.inf
    refused("not finite in float32", values=bad)
    refused("Contempt", classes=np.array([*EXPR.classes[:-1], "Contempt"]))
    refused("is there twice", frames=np.where(arrays["frames"] == 9, 8, arrays["frames"]))
    turned = {"values": arrays["values"][:, ::-1], "classes": EXPR.classes[::-1]}
    refused("each once and in this order", **turned)
    video.write_bytes(good)
    save_prediction(case / "alien", "other", arrays["frames"], arrays["values"], EXPR.classes)
    status, _, err = call(capsys, *usual(case), f"--predictions=alien={case / 'alien'}")
    assert status == 2 and "member alien: shares no frame" in err


def test_outputs_are_never_a_mixture(case, capsys):
    save_prediction(case / "out" / "predictions", "old", [1], np.eye(8)[:1], EXPR.classes)
    status, _, err = call(capsys, *usual(case))
    assert status == 2 and "holds old.npz, of another run" in err
    (case / "out" / "predictions" / "old.npz").unlink()
    assert call(capsys, *usual(case, "--method=average"))[0] == 0
    again = (f"--predictions=self={case / 'out' / 'predictions'}",)
    status, _, err = call(capsys, *usual(case), *again)
    assert status == 2 and "is member self's own folder" in err


def test_thresholds_are_found_stored_and_applied(tmp_path, capsys):
    """What is written scores as printed without a word about thresholds, here and by the stored
    combination."""
    rng, members = np.random.default_rng(0), {}
    (tmp_path / "a").mkdir()
    for video in VIDEOS:
        on = np.repeat(rng.random((16, 12)) < 0.4, 5, axis=0).astype(np.int32)
        rows = "\n".join(",".join(map(str, row)) for row in on)
        (tmp_path / "a" / f"{video}.txt").write_text(",".join(AU.classes) + f"\n{rows}\n")
        for name in ("x", "y"):
            values = np.clip(0.1 + 0.25 * on + 0.15 * rng.normal(size=on.shape), 0, 1)
            save_prediction(tmp_path / name, video, np.arange(1, 81), values, AU.classes)
            members[name] = f"{name}={tmp_path / name}"
    flags = ["--track=AU", f"--annotations={tmp_path / 'a'}", "--method=average"]
    call = ["--predictions", *members.values(), *flags]
    plain, _ = record(capsys, *call, "--output", tmp_path / "plain")
    found, out = record(capsys, *call, "--output", tmp_path / "out", "--search_thresholds")
    assert len(found["thresholds"]) == 12 and max(found["thresholds"]) < 0.4
    assert plain["thresholds"] is None and "thresholds AU1 0." in out
    assert plain["score"] + 0.2 < found["score"] < found["scores"]["tuned"]
    flags = ["--track=AU", f"--annotations={tmp_path / 'a'}", "--json"]
    for folder in ("out", "again"):
        predictions = tmp_path / folder / "predictions"
        assert score.main(["score", *flags, f"--predictions={predictions}"]) == 0
        scored = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert scored["score"] == pytest.approx(found["scores"]["tuned"], abs=1e-12)
        stored = ["--track=AU", "--combination", tmp_path / "out" / "ensemble.json"]
        again, _ = record(
            capsys, "--predictions", *members.values(), *stored, "--output", tmp_path / "again"
        )
        assert again["thresholds"] == found["thresholds"]


def test_clips_are_labelled_by_a_table(tmp_path, capsys):
    rng = np.random.default_rng(0)
    truth = rng.random((12, 6))
    lines = [f"{clip:05d}," + ",".join(f"{x:.4f}" for x in row) for clip, row in enumerate(truth)]
    header = ",".join(("Filename", *EMI.classes))
    (tmp_path / "valid_split.csv").write_text("\n".join([header, *lines]) + "\n")
    for name in ("face", "sound"):
        for clip, row in enumerate(truth):
            values = np.clip(row + 0.3 * rng.normal(size=6), 0, 1)[None]
            save_prediction(tmp_path / name, f"{clip:05d}", [1], values, EMI.classes)
    members = [f"{name}={tmp_path / name}" for name in ("face", "sound")]
    for annotations in (tmp_path, tmp_path / "valid_split.csv"):
        found, out = record(
            capsys,
            *("--predictions", *members, "--track=EMI", f"--annotations={annotations}"),
            *("--method=average", "--output", tmp_path / "out"),
        )
        assert (found["frames"], found["videos"]) == (12, 12)
        alone = [m["score"] for m in found["scores"]["members"].values()]
        assert found["score"] > max(alone)
        best = found["scores"]["best_member"]
        assert best["value"] == pytest.approx(found["score"] - max(alone))
        assert f"against {best['member']} alone, the best member: {best['value']:+.4f}" in out


def test_help(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0 and "python -m abaw_jax.ensemble" in out and "--member_scene" in out


def test_the_command_starts_without_jax(case):
    code = (
        "import sys, abaw_jax.ensemble as e; status = e.main();"
        "sys.exit(status or 100 * ('jax' in sys.modules or 'cv2' in sys.modules))"
    )
    arguments = list(map(str, usual(case, "--method=average")))
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [sys.executable, "-m", "abaw_jax.ensemble", "--wrong"], capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
