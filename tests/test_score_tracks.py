"""The scorer on the tracks whose labels are no single class, and on clips."""

import json

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import f1_score

from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.score import main
from abaw_jax.tracks import AU, CE, EMI, VA

VIDEOS = {"video10_1_left": 60, "v": 33}
LONG = "9" * 131_073  # a character more than the csv module reads as one cell


def record(capsys, track, predictions, annotations, *options):
    arguments = [f"--track={track.name}", f"--predictions={predictions}", "--json", *options]
    status = main(["score", *arguments, f"--annotations={annotations}"])
    out, err = capsys.readouterr()
    assert (status, err) == (0, "")
    return json.loads(out.splitlines()[-1])


def refusal(capsys, track, predictions, annotations, *options):
    arguments = [f"--track={track.name}", f"--predictions={predictions}", *options]
    assert main(["score", *arguments, f"--annotations={annotations}"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    return err


def text_of(track, row):
    """A label row as an annotation file holds it."""
    return ",".join(str(v) for v in row.tolist())


def make_case(root, track, draw_labels, draw_values):
    """Annotations and predictions of VIDEOS: (annotations, predictions, labels, values), joined."""
    folder = root / "annotations" / f"{track.folder_prefix}_Challenge" / "Validation_Set"
    folder.mkdir(parents=True)
    rng, truth, said = np.random.default_rng(0), [], []
    for video, frames in VIDEOS.items():
        labels = draw_labels(rng, frames + 1).astype(track.label_type)
        labels[rng.random(frames + 1) < 0.2, rng.integers(track.label_width)] = track.invalid
        lines = [",".join(track.classes), *(text_of(track, row) for row in labels)]
        (folder / f"{video}.txt").write_text("\n".join(lines) + "\n")
        values = draw_values(rng, labels[:frames]).astype(np.float32)
        save_prediction(root / "p", video, np.arange(1, frames + 1), values, track.classes)
        truth.append(labels[:frames])
        said.append(values)
    return root / "annotations", root / "p", np.concatenate(truth), np.concatenate(said)


def submission(path, track, values):
    """The same predictions as a submission file."""
    rows, lines = iter(track.decode(values)), [track.header]
    for video, frames in VIDEOS.items():
        lines += [f"{video}/{i + 1:05d}.jpg,{track.format_row(next(rows))}" for i in range(frames)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def va(tmp_path):
    return make_case(
        tmp_path,
        VA,
        lambda rng, n: rng.uniform(-1, 1, (n, 2)).round(3),
        lambda rng, labels: np.clip(0.7 * labels + rng.normal(0, 0.3, labels.shape), -1, 1).round(
            3
        ),
    )


@pytest.fixture
def au(tmp_path):
    return make_case(
        tmp_path,
        AU,
        lambda rng, n: rng.integers(0, 2, (n, 12)),
        lambda rng, labels: 0.3 * np.maximum(labels, 0) + 0.6 * rng.random(labels.shape),
    )


def test_valence_and_arousal(va, capsys, tmp_path):
    annotations, predictions, labels, values = va
    keep = (labels != -5).all(1)
    x, y = values[keep].astype(np.float64), labels[keep].astype(np.float64)
    cov = ((x - x.mean(0)) * (y - y.mean(0))).mean(0)
    ccc = 2 * cov / (x.var(0) + y.var(0) + (x.mean(0) - y.mean(0)) ** 2)
    found = record(capsys, VA, predictions, annotations)
    assert found["score"] == found["metrics"]["mean_ccc"] == pytest.approx(ccc.mean(), abs=1e-9)
    assert [row["ccc"] for row in found["per_class"]] == pytest.approx(ccc, abs=1e-9)
    assert (found["frames"], found["confusion"], found["thresholds"]) == (keep.sum(), None, None)
    by_file = record(capsys, VA, submission(tmp_path / "s.txt", VA, values), annotations)
    assert by_file["score"] == pytest.approx(found["score"], abs=1e-9)
    error = refusal(capsys, VA, predictions, annotations, "--thresholds=0.4")
    assert "--thresholds=0.4: VA is not decided by thresholds" in error


def test_action_units_with_and_without_thresholds(au, capsys, tmp_path):
    annotations, predictions, labels, values = au
    keep = (labels != -1).all(1)

    def score(thresholds):
        said = values[keep] >= np.asarray(thresholds)
        return f1_score(labels[keep], said, average="macro", zero_division=0.0)

    found = record(capsys, AU, predictions, annotations)
    assert found["score"] == pytest.approx(score(0.5), abs=1e-9) and found["thresholds"] == 0.5
    by_file = record(capsys, AU, submission(tmp_path / "s.txt", AU, values), annotations)
    assert by_file["score"] == found["score"]
    limits = np.linspace(0.2, 0.7, 12).round(2)
    for option, thresholds in (("0.4", 0.4), (",".join(map(str, limits)), limits)):
        found = record(capsys, AU, predictions, annotations, f"--thresholds={option}")
        assert found["score"] == pytest.approx(score(thresholds), abs=1e-9)
        assert found["score"] != by_file["score"]
    for wrong in ("0.4,0.5", "x", "nan"):
        error = refusal(capsys, AU, predictions, annotations, f"--thresholds={wrong}")
        assert f"--thresholds={wrong}; expected one number or 12, one for each of AU1,AU2" in error


def test_compound_expressions_where_annotated(tmp_path, capsys):
    annotations, predictions, labels, values = make_case(
        tmp_path,
        CE,
        lambda rng, n: rng.integers(0, 7, (n, 1)),
        lambda rng, labels: rng.dirichlet(np.ones(7), len(labels)),
    )
    keep = labels[:, 0] >= 0
    want = f1_score(labels[keep, 0], values[keep].argmax(1), average="macro")
    found = record(capsys, CE, predictions, annotations)
    assert found["score"] == pytest.approx(want, abs=1e-9)
    by_file = record(capsys, CE, submission(tmp_path / "s.txt", CE, values), annotations)
    assert by_file["confusion"] == found["confusion"]


NAMES = ["Joy", "filename", "Admiration", "EMPATHIC PAIN", "Amusement", "Determination"]


@pytest.fixture
def emi(tmp_path):
    """A table whose columns are in another order and case, quoted, with a mark at its beginning."""
    rng, clips = np.random.default_rng(0), [7, 12660, 123]
    clips += list(range(200, 240))
    labels = rng.choice([0, 0, 0.333, 0.5, 1], (len(clips), 6)).round(3)
    values = np.clip(labels + rng.normal(0, 0.4, labels.shape), 0, 1).round(3).astype(np.float32)
    lines = ['\ufeff"Excitement",' + ",".join(NAMES) + ",More"]
    for clip, row in zip(clips, labels, strict=True):
        named = dict(zip(map(str.lower, EMI.classes), row, strict=True)) | {"filename": clip}
        cells = [named[name.lower()] for name in ("excitement", *NAMES)]
        lines.append(",".join(f'"{cell}"' for cell in cells) + ",x")
        save_prediction(
            tmp_path / "p", f"{clip:05d}", [1], values[len(lines) - 2, None], EMI.classes
        )
    table = tmp_path / "valid_split.csv"
    table.write_bytes("\r\n".join([*lines, "", ""]).encode())
    return table, clips, labels, values


def test_mimicry_of_clips(emi, capsys, tmp_path):
    table, clips, labels, values = emi
    r = [pearsonr(values[:, k].astype(np.float64), labels[:, k].astype(np.float32)).statistic
         for k in range(6)]  # fmt: skip
    for annotations in (table, tmp_path):
        found = record(capsys, EMI, tmp_path / "p", annotations)
        assert found["score"] == pytest.approx(np.mean(r), abs=1e-9)
        assert found["annotations"] == str(table)
    assert [row["pearson"] for row in found["per_class"]] == pytest.approx(r, abs=1e-9)
    assert (
        found["frames"] == found["videos"] == len(clips) and found["classes"][3] == "Empathic Pain"
    )
    more = record(capsys, EMI, tmp_path / "p", table, "--intervals=20", "--per_video")
    assert more["intervals"]["score"]["low"] < found["score"] < more["intervals"]["score"]["high"]
    errors = [row["mean_rmse"] for row in more["per_video"]]
    assert errors == sorted(errors, reverse=True)
    want = {f"{clip:05d}": e for clip, e in zip(clips, abs(values - labels).mean(1), strict=True)}
    assert {row["video"]: row["mean_rmse"] for row in more["per_video"]} == pytest.approx(want)
    lines = [f"{clip},{EMI.format_row(row)}" for clip, row in zip(clips, values, strict=True)]
    path = tmp_path / "s.csv"
    path.write_text("\n".join([EMI.header, *reversed(lines), "99999,0,0,0,0,0,0"]) + "\n")
    by_file = record(capsys, EMI, path, table)
    assert by_file["score"] == pytest.approx(found["score"], abs=1e-9)
    path.write_text("\n".join([EMI.header, *lines[1:]]))
    assert "has no frame of 00007, which is labelled (1 of 43" in refusal(capsys, EMI, path, table)
    for line, message in (
        ("a/00001.jpg,0,0,0,0,0,0", "s.csv:2: 'a/00001.jpg'; expected a clip's number"),
        ("7,0,0,0,0,0,1.2", "s.csv:2: '0,0,0,0,0,1.2'; EMI rows hold numbers from 0 to 1"),
        (f"{clips[1]},0,0,0,0,0,0", "s.csv:3: 12660 stands in line 2 already"),
    ):
        path.write_text("\n".join([EMI.header, line, *lines[1:]]))
        assert message in refusal(capsys, EMI, path, table)


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        ("Filename,Joy", "1,0", ":1: has 0 columns 'Admiration'; expected one each of Filename"),
        ("", "1,0", ":1: has 0 columns 'Filename'"),
        (EMI.header + ",joy", "1" + ",0" * 7, ":1: has 2 columns 'Joy'"),
        (EMI.header, "1,0,0,0,0,0", ":2: has 6 columns; its header has 7"),
        (
            EMI.header,
            "1,0,0,0,0,0,x",
            ":2: '0,0,0,0,0,x'; EMI rows hold numbers from 0 to 1, or -5",
        ),
        (EMI.header, "1,0,0,0,0,0,nan", ":2: '0,0,0,0,0,nan'"),
        (EMI.header, "a.mp4,0,0,0,0,0,0", ":2: 'a.mp4' is no clip's number"),
        (EMI.header, "1,0,0,0,0,0,0\n00001,0,0,0,0,0,0", ":3: '00001' stands in line 2 too"),
        (EMI.header, '1,0,0,0,0,0,"0\n2,0,0,0,0,0,x', ":2: '1,0,0,0,0,0,\"0' is no line of a csv"),
        (EMI.header, "", ": has no row below its header line"),
        pytest.param(EMI.header, f"1,0,0,0,0,0,0\n{LONG}", ":3: '9999", id="long cell"),
        pytest.param(LONG, "1,0", ":1: '9999", id="long name"),
    ],
)
def test_tables_of_clips_that_cannot_be(tmp_path, capsys, header, row, message):
    table = tmp_path / "t.csv"
    table.write_text(f"{header}\n{row}\n")
    assert f"{table}{message}" in refusal(capsys, EMI, tmp_path, table)


def test_absent_tables_are_named(tmp_path, capsys):
    assert "valid_split.csv: cannot be read" in refusal(capsys, EMI, tmp_path, tmp_path)
    error = refusal(capsys, EMI, tmp_path, tmp_path, "--split=Train_Set")
    assert "train_split.csv: cannot be read" in error
