"""The scorer as people call it: every way in, every refusal, the same figures."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from sklearn.metrics import f1_score

from abaw_jax.errors import InputError
from abaw_jax.evaluation.confidence import bootstrap, video_statistics, video_table
from abaw_jax.evaluation.predictions import Prediction, save_prediction
from abaw_jax.score import main, score_predictions
from abaw_jax.tracks import EXPR

VIDEOS = {"video10_1_left": 120, "28-30-1280x720-4": 75, "v": 33}


@pytest.fixture
def case(tmp_path):
    """Annotations of three videos (each with the row that has no frame), and predictions."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "6th ABAW Annotations" / "EXPR_Recognition_Challenge" / "Validation_Set"
    folder.mkdir(parents=True)
    labels, predictions = {}, {}
    for video, frames in VIDEOS.items():
        rows = rng.integers(-1, 8, frames + 1)
        rows[-1] = 3
        text = ",".join(EXPR.classes) + "\n" + "\n".join(map(str, rows)) + "\n"
        (folder / f"{video}.txt").write_text(text)
        (folder / f"._{video}.txt").write_text("resource fork")
        values = rng.dirichlet(np.ones(8), frames) + 0.3 * np.eye(8)[rows[:frames]]
        values = (values / values.sum(1, keepdims=True)).astype(np.float32)
        labels[video] = rows[:, None].astype(np.int32)
        predictions[video] = Prediction(np.arange(1, frames + 1, dtype=np.int32), values)
        save_prediction(tmp_path / "p", video, np.arange(1, frames + 1), values, EXPR.classes)
    return tmp_path, folder, labels, predictions


def call(capsys, predictions, annotations, *options):
    status = main(
        [
            "score",
            "--track=EXPR",
            f"--predictions={predictions}",
            f"--annotations={annotations}",
            *options,
        ]
    )
    return status, *capsys.readouterr()


def record(capsys, *arguments):
    status, out, err = call(capsys, *arguments, "--json")
    assert (status, err) == (0, "")
    return json.loads(out.splitlines()[-1])


def expected(labels, predictions):
    """Macro F1 by scikit-learn over the labelled frames but the last rows, joined."""
    truth = np.concatenate([rows[:-1, 0] for rows in labels.values()])
    said = np.concatenate([predictions[video].values.argmax(1) for video in labels])
    return f1_score(truth[truth >= 0], said[truth >= 0], average="macro"), int((truth >= 0).sum())


def save(folder, video, prediction):
    save_prediction(folder, video, prediction.frames, prediction.values, EXPR.classes)


def test_score_and_json_agree_with_scikit_learn(case, capsys):
    root, folder, labels, predictions = case
    score, frames = expected(labels, predictions)
    found = record(capsys, root / "p", folder)
    assert found["score"] == found["metrics"]["macro_f1"] == pytest.approx(score, abs=1e-12)
    assert (found["track"], found["frames"], found["videos"]) == ("EXPR", frames, 3)
    assert (found["last_rows"], found["filled"], found["gaps"]) == (3, 0, None)
    assert found["classes"] == list(EXPR.classes) == [r["name"] for r in found["per_class"]]
    assert np.sum(found["confusion"]) == frames


def test_text_for_people(case, capsys):
    root, folder, labels, predictions = case
    status, out, _ = call(capsys, root / "p", folder)
    score, frames = expected(labels, predictions)
    assert status == 0
    assert out.splitlines()[-1] == f"EXPR macro_f1 {score:.4f}"
    assert f"{frames} labelled frames of 3 videos" in out
    assert "3 labelled last rows have no frame" in out and "Surprise" in out


def test_all_heights_of_the_annotations_score_alike(case, capsys):
    root, folder, _, _ = case
    scores = {
        record(capsys, root / "p", start)["score"]
        for start in (folder, folder.parent, folder.parent.parent)
    }
    assert len(scores) == 1
    status, _, err = call(capsys, root / "p", folder.parent, "--split=Train_Set")
    assert status == 2 and "Train_Set" in err


def test_submission_and_folder_score_alike(case, capsys):
    root, folder, _, predictions = case
    lines = [
        f"{video}/{frame:05d}.jpg,{label}"
        for video, p in predictions.items()
        for frame, label in zip(p.frames, p.values.argmax(1), strict=True)
    ]
    np.random.default_rng(0).shuffle(lines)
    lines += ["test-video/00001.jpg,0"]  # more than is annotated
    (root / "s.txt").write_text("\n".join([EXPR.header, *lines]) + "\n")
    by_file, by_folder = (record(capsys, root / name, folder) for name in ("s.txt", "p"))
    assert {**by_file, "predictions": 0} == {**by_folder, "predictions": 0}


def test_more_frames_than_labels_change_nothing(case, capsys):
    root, folder, _, predictions = case
    before = record(capsys, root / "p", folder)
    p = predictions["v"]
    frames = np.append(p.frames, [40, 10000])
    values = np.append(p.values, np.eye(8, dtype=np.float32)[[1, 2]], axis=0)
    save(root / "p", "v", Prediction(frames, values))
    save(root / "p", "unannotated", p)
    assert record(capsys, root / "p", folder) == before


def test_a_last_row_with_a_frame_counts(case, capsys):
    root, folder, labels, predictions = case
    p = predictions["v"]
    values = np.append(p.values, np.eye(8, dtype=np.float32)[[3]], axis=0)
    save(root / "p", "v", Prediction(np.append(p.frames, 34), values))
    found = record(capsys, root / "p", folder)
    assert found["last_rows"] == 2
    assert found["frames"] == expected(labels, predictions)[1] + 1


def test_missing_frames_are_named_unless_a_rule_is(case, capsys):
    root, folder, labels, predictions = case
    p = predictions["v"]
    labelled = np.flatnonzero(labels["v"][:-1, 0] >= 0) + 1
    gone = labelled[[4, 9]]
    kept = ~np.isin(p.frames, gone)
    save(root / "p", "v", Prediction(p.frames[kept], p.values[kept]))
    status, out, err = call(capsys, root / "p", folder)
    assert (status, out) == (2, "") and err.count("\n") == 1
    assert f"lacks frame {gone[0]} of v" in err and "(2 such frames in this video, 2 in 1" in err
    assert "--gaps linear|nearest|hold" in err
    found = record(capsys, root / "p", folder, "--gaps=hold")
    held = p.values.copy()
    for frame in gone:
        held[frame - 1] = held[frame - 2]
    truth = np.concatenate([rows[:, 0] for rows in labels.values()])
    said = np.concatenate(
        [
            np.append(q.values, q.values[-1:], axis=0).argmax(1)
            for q in ({**predictions, "v": Prediction(p.frames, held)}[v] for v in labels)
        ]
    )
    want = f1_score(truth[truth >= 0], said[truth >= 0], average="macro")
    assert found["score"] == pytest.approx(want, abs=1e-12)
    assert (found["filled"], found["last_rows"], found["gaps"]) == (2 + 3, 0, "hold")


def test_intervals_and_videos_are_given_where_asked_for(case, capsys):
    root, folder, labels, predictions = case
    plain = record(capsys, root / "p", folder)
    asked = ("--intervals=50", "--seed=3", "--per_video")
    found = record(capsys, root / "p", folder, *asked)
    assert found.keys() - plain.keys() == {"intervals", "resamples", "seed", "groups", "per_video"}
    assert plain.items() <= found.items()
    # The same as of what is scored, by the functions that the report takes them of.
    known = video_statistics(predictions, labels, EXPR)
    groups = {video: video for video in labels}
    want = bootstrap(known, EXPR, resamples=50, seed=3, groups=groups)
    assert found["intervals"] == {name: dataclasses.asdict(i) for name, i in want.items()}
    assert found["per_video"] == video_table(known, EXPR)
    assert (found["resamples"], found["seed"], found["groups"]) == (50, 3, 3)
    assert record(capsys, root / "p", folder, "--intervals=50")["intervals"] != found["intervals"]
    _, out, _ = call(capsys, root / "p", folder, *asked)
    assert "95 % of 50 resamples of 3 recordings" in out and "28-30-1280x720-4" in out
    assert f"{want['score'].low:.4f}  {want['score'].high:.4f}" in out
    assert out.splitlines()[-1] == f"EXPR macro_f1 {plain['score']:.4f}"


def test_intervals_draw_persons_whole(case, capsys, tmp_path):
    root, folder, _, _ = case
    table = tmp_path / "persons.csv"
    table.write_text("video,person\nvideo10_1_left,p\nv,p\n28-30-1280x720-4,q\n")
    asked = ("--intervals=20", f"--persons={table}")
    assert record(capsys, root / "p", folder, *asked)["groups"] == 2
    assert "20 resamples of 2 persons" in call(capsys, root / "p", folder, *asked)[1]
    for options, message in (
        ([f"--persons={table}"], "--persons needs --intervals"),
        (["--seed=1"], "--seed needs --intervals"),
        (["--intervals=-1"], "intervals"),
    ):
        status, out, err = call(capsys, root / "p", folder, *options)
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    table.write_text("video,person\nv,p\n")
    status, _, err = call(capsys, root / "p", folder, *asked)
    assert status == 2 and "has no person" in err


def test_only_the_row_after_the_last_frame_is_let_off():
    # Frame 3 is the last labelled one, but a row follows it: it has an image.
    labels = {"v": np.array([[0], [1], [2], [-1]], np.int32)}
    predictions = {"v": Prediction(np.array([1, 2]), np.eye(8, dtype=np.float32)[:2])}
    with pytest.raises(InputError, match="lacks frame 3 of v"):
        score_predictions(predictions, labels, EXPR)
    scored = score_predictions(predictions, {"v": labels["v"][:3]}, EXPR)
    assert (scored.frames, scored.last_rows) == (2, 1)


def test_unlabelled_frames_may_be_missing(case, capsys):
    root, folder, labels, predictions = case
    before = record(capsys, root / "p", folder)
    for video, p in predictions.items():
        keep = labels[video][:-1, 0] >= 0
        save(root / "p", video, Prediction(p.frames[keep], p.values[keep]))
    assert record(capsys, root / "p", folder) == before


@pytest.mark.parametrize("options", [(), ("--gaps=linear",)])
def test_a_missing_video_is_an_error_even_with_a_rule(case, capsys, options):
    root, folder, _, _ = case
    (root / "p" / "v.npz").unlink()
    status, _, err = call(capsys, root / "p", folder, *options)
    assert status == 2 and "no frame of v, which is labelled (1 of 3" in err


def test_a_video_without_labels_needs_no_prediction(case, capsys):
    root, folder, _, _ = case
    before = record(capsys, root / "p", folder)
    (folder / "unlabelled.txt").write_text("header\n-1\n-1\n")
    assert record(capsys, root / "p", folder) == before
    (folder / "v.txt").write_text((folder / "v.txt").read_text().replace("\n3\n", "\n4\n"))
    assert record(capsys, root / "p", folder)["split_hash"] != before["split_hash"]


def test_score_does_not_depend_on_the_order_of_videos(case):
    _, _, labels, predictions = case
    forward = score_predictions(predictions, labels, EXPR)
    labels = dict(reversed(labels.items()))
    backward = score_predictions(predictions, labels, EXPR)
    assert forward.summary.metrics == backward.summary.metrics
    np.testing.assert_array_equal(forward.summary.confusion, backward.summary.confusion)


def test_bad_files_give_one_line(case, capsys):
    root, folder, _, _ = case
    for path, content, found in (
        (folder / "v.txt", "header\n1\n9\n", "v.txt:3: '9'"),
        (folder / "v.txt", "header\n", "no row below"),
        (root / "p" / "v.npz", "text", "v.npz"),
    ):
        before = path.read_bytes()
        path.write_text(content)
        status, out, err = call(capsys, root / "p", folder)
        assert (status, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
        assert found in err
        path.write_bytes(before)
    for predictions in ("absent", "p/v.npz"):
        status, _, err = call(capsys, root / predictions, folder)
        assert status == 2 and predictions in err and err.count("\n") == 1


def test_no_label_at_all(case, capsys):
    root, folder, _, _ = case
    for path in folder.glob("[!.]*.txt"):
        path.write_text("header\n-1\n")
    status, _, err = call(capsys, root / "p", folder)
    assert status == 2 and "no row of the 3 annotated videos has a EXPR label" in err


@pytest.mark.parametrize(
    "arguments, found",
    [
        (["--tracks=EXPR"], "tracks"),
        (["--track=MTL", "--predictions=p", "--annotations=a"], "EXPR"),
        (["--track=EXPR", "--predictions=p"], "--annotations is missing"),
        (["--track=EXPR", "--predictions=p", "--annotations=a", "--gaps=cubic"], "linear"),
        (["--track=EXPR", "--predictions=p", "--annotations=a", "more"], "'more'"),
        ([], "--track is missing"),
        (["--track"], "track"),
    ],
)
def test_bad_flags_give_one_line(capsys, arguments, found):
    assert main(["score", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and found in err


def test_help_and_any_case_of_the_track(case, capsys):
    assert main(["score", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--gaps" in out and "--predictions" in out and "python -m abaw_jax.score" in out
    root, folder, _, _ = case
    arguments = ["--track", "expr", "--predictions", str(root / "p")]
    assert main(["score", *arguments, "--annotations", str(folder)]) == 0


def test_the_command_starts_without_jax(case):
    root, folder, labels, predictions = case
    command = (
        "import sys, abaw_jax.score as s; status = s.main();"
        "sys.exit(status or 100 * ('jax' in sys.modules or 'cv2' in sys.modules))"
    )
    arguments = ["--track", "EXPR", "--predictions", root / "p", "--annotations", folder, "--json"]
    done = subprocess.run(
        [sys.executable, "-c", command, *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    score = json.loads(done.stdout.splitlines()[-1])["score"]
    assert score == pytest.approx(expected(labels, predictions)[0], abs=1e-12)
    done = subprocess.run(
        [sys.executable, "-m", "abaw_jax.score", "--track", "EXPR", "--wrong", "1"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
