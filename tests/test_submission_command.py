"""The submission command as people call it: for each track out and back in, and every refusal."""

import json
import subprocess
import sys

import numpy as np
import pytest

from abaw_jax.evaluation.predictions import save_prediction
from abaw_jax.evaluation.submission import read_submission
from abaw_jax.submission import main
from abaw_jax.tracks import AU, CE, EMI, EXPR, TRACKS, VA

VIDEOS = {"28-30-1280x720-4": 9, "video10_1_left": 12, "2-30-640x360": 6}
CLIPS = ["12660", "00007", "123", "00045"]
KNOWN = slice(2, -2)  # of a video's frames, those with a crop


def call(capsys, *arguments):
    status = main(["submission", *map(str, arguments)])
    return status, *capsys.readouterr()


def refusal(capsys, *arguments):
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1
    return err


def draw_values(rng, track, rows):
    """Values as a model of the track gives them."""
    if track.label_type == "float32":
        return rng.uniform(*track.label_range, (rows, track.outputs)).astype(np.float32)
    if track is AU:
        return rng.random((rows, 12)).astype(np.float32)
    return rng.dirichlet(np.ones(track.outputs), rows).astype(np.float32)


def make_case(root, track):
    """(example, predictions, values of each line that the rule of gaps gives)."""
    rng, texts, values = np.random.default_rng(0), [], []
    for clip in CLIPS if track.per_clip else ():
        drawn = draw_values(rng, track, 1)
        save_prediction(root / "p", clip.zfill(5), [1], drawn, track.classes)
        texts.append(clip)
        values.append(drawn[0])
    for video, rows in () if track.per_clip else VIDEOS.items():
        drawn = draw_values(rng, track, rows)
        frames = np.arange(1, rows + 1)
        save_prediction(root / "p", video, frames[KNOWN], drawn[KNOWN], track.classes)
        for frame in frames:
            texts.append(f"{video}/{frame:05d}.jpg")
            values.append(drawn[np.clip(frame - 1, 2, rows - 3)])
    order = rng.permutation(len(texts))
    texts, values = [texts[i] for i in order], np.stack(values)[order]
    zeros = track.format_row(np.zeros(track.label_width))
    example = root / "example.txt"
    example.write_text("\n".join([track.header, *(f"{t},{zeros}" for t in texts)]) + "\n")
    return example, texts, values


@pytest.mark.parametrize("track", TRACKS.values(), ids=TRACKS)
def test_out_and_back_in(tmp_path, capsys, track):
    example, texts, values = make_case(tmp_path, track)
    flags = ("--track", track.name, "--example", example)
    out = tmp_path / "new" / "s.txt"
    status, text, err = call(
        capsys, *flags, "--predictions", tmp_path / "p", "--out", out, "--json"
    )
    assert (status, err) == (0, "")
    found = json.loads(text.splitlines()[-1])
    lines = out.read_text().splitlines()
    assert lines[0] == track.header
    assert [line.partition(",")[0] for line in lines[1:]] == texts
    want = track.decode(values)
    rows = [[float(x) for x in line.split(",")[1:]] for line in lines[1:]]
    np.testing.assert_allclose(rows, want, rtol=1e-5, atol=1e-8)
    assert found["lines"] == len(texts)
    assert found["filled"] == (0 if track.per_clip else 4 * len(VIDEOS))
    before = out.read_bytes()
    status, text, err = call(capsys, *flags, "--check", out)
    assert (status, err) == (0, "") and "as in the example" in text
    # As a Windows editor saves it.
    out.write_bytes(b"\xef\xbb\xbf" + before.replace(b"\n", b"\r\n"))
    status, text, err = call(capsys, *flags, "--check", out, "--json")
    assert (status, err) == (0, "")
    videos = len(CLIPS) if track.per_clip else len(VIDEOS)
    assert json.loads(text.splitlines()[-1])["videos"] == videos


def spoil(lines, number, **changes):
    """The lines with the one of that number (1-based, the header is 1) changed."""
    lines = list(lines)
    text, _, row = lines[number - 1].partition(",")
    lines[number - 1] = f"{changes.get('text', text)},{changes.get('row', row)}"
    return lines


DAMAGES = {
    "a missing line": (VA, lambda s: s[:4] + s[5:], ":5: "),
    "a missing last line": (EXPR, lambda s: s[:-1], ":28: ends here; the example has "),
    "a line more": (CE, lambda s: [*s, "v/00001.jpg,1"], ":29: v/00001.jpg; the example ends"),
    "a duplicate": (AU, lambda s: [*s[:4], s[2], *s[5:]], "stands in line 3 already"),
    "another order": (EXPR, lambda s: [*s[:5], s[6], s[5], *s[7:]], ":6: "),
    "another header": (VA, lambda s: [s[0].replace("valence,arousal", "arousal,valence"), *s[1:]],
                       ":1: header"),
    "another track's header": (EXPR, lambda s: [CE.header, *s[1:]], ":1: header"),
    "another spelling of the header": (EMI, lambda s: [s[0].lower(), *s[1:]], ":1: header"),
    "NaN": (VA, lambda s: spoil(s, 7, row="0.5,nan"), ":7: '0.5,nan'; VA rows hold numbers"),
    "out of range": (VA, lambda s: spoil(s, 8, row="0.5,-1.01"), ":8: '0.5,-1.01'"),
    "a share above 1": (EMI, lambda s: spoil(s, 3, row="0,0,0,0,0,1.2"), ":3: '0,0,0,0,0,1.2'"),
    "no integer": (EXPR, lambda s: spoil(s, 9, row="3.0"), ":9: '3.0'; EXPR rows hold integers"),
    "a class too many": (CE, lambda s: spoil(s, 9, row="7"), ":9: '7'; CE rows hold integers"),
    "a unit that is neither": (AU, lambda s: spoil(s, 6, row="0,2" + ",0" * 10), ":6: '0,2,0"),
    "a column more": (AU, lambda s: spoil(s, 6, row=",".join("0" * 13)), "has 13 columns"),
    "another video": (EXPR, lambda s: spoil(s, 5, text="other/00001.jpg"),
                      ":5: other/00001.jpg; the example has "),
    "another spelling of a clip": (EMI, lambda s: [x.replace("00007,", "7,") for x in s],
                                   "; the example has 00007 here"),
    "no location": (AU, lambda s: spoil(s, 5, text="00001.jpg"), ":5: '00001.jpg'; expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused_by_line(tmp_path, capsys, name):
    track, damage, message = DAMAGES[name]
    example, _, _ = make_case(tmp_path, track)
    flags = ("--track", track.name, "--example", example)
    out = tmp_path / "s.txt"
    assert call(capsys, *flags, "--predictions", tmp_path / "p", "--out", out)[0] == 0
    good = out.read_text().splitlines()
    bad = damage(good)
    assert bad != good
    out.write_text("\n".join(bad) + "\n")
    error = refusal(capsys, *flags, "--check", out)
    assert f"{out}:" in error and message in error


def test_thresholds_of_units_and_smoothing(tmp_path, capsys):
    example, texts, values = make_case(tmp_path, AU)
    flags = ["--track=AU", f"--example={example}", f"--predictions={tmp_path / 'p'}"]
    flags.append(f"--out={tmp_path / 's.txt'}")
    limits = np.linspace(0.1, 0.9, 12).round(2)
    for given, want in (("0.7", 0.7), (",".join(map(str, limits)), limits)):
        assert call(capsys, *flags, f"--thresholds={given}")[0] == 0
        found = read_submission(tmp_path / "s.txt", AU)
        for text, row in zip(texts, (values >= want).astype(int), strict=True):
            video, frame = text.rpartition("/")[0], int(text[-9:-4])
            assert found[video][1][frame - 1].tolist() == row.tolist()
    before = (tmp_path / "s.txt").read_text()
    assert call(capsys, *flags, "--smooth=box", "--width=5")[0] == 0
    assert (tmp_path / "s.txt").read_text() != before
    assert "expected one number or 12" in refusal(capsys, *flags, "--thresholds=0.4,0.5")
    assert "width 0.0; expected 1, 2, 3" in refusal(capsys, *flags, "--smooth=box")


def test_values_that_are_not_finite_name_file_and_frame(tmp_path, capsys):
    example, _, _ = make_case(tmp_path, VA)
    path = tmp_path / "p" / "2-30-640x360.npz"
    arrays = dict(np.load(path))
    for bad in (np.nan, np.inf):
        arrays["values"][1, 0] = bad
        np.savez(path, **arrays)
        flags = ("--track=VA", f"--example={example}", f"--predictions={tmp_path / 'p'}")
        error = refusal(capsys, *flags, f"--out={tmp_path / 's.txt'}")
        assert f"{path}: frame 4 has a value that is not finite" in error
    assert not (tmp_path / "s.txt").exists()


def test_a_video_without_prediction(tmp_path, capsys):
    for track, fallback in ((EXPR, "Other"), (VA, "mean")):
        root = tmp_path / track.key
        root.mkdir()
        example, _, _ = make_case(root, track)
        (root / "p" / "2-30-640x360.npz").unlink()
        flags = [f"--track={track.name}", f"--example={example}", f"--predictions={root / 'p'}"]
        flags.append(f"--out={root / 's.txt'}")
        assert "names 2-30-640x360, of which no frame" in refusal(capsys, *flags)
        status, out, _ = call(capsys, *flags, f"--fallback={fallback}")
        assert status == 0 and f"1 videos had none at all: {fallback}" in out
        rows = read_submission(root / "s.txt", track)["2-30-640x360"][1]
        assert (rows == rows[0]).all() and (track is VA or rows[0] == 7)
    # One name says nothing of a row of two numbers.
    assert "fallback 'valence'; expected mean" in refusal(capsys, *flags, "--fallback=valence")


@pytest.mark.parametrize(
    "arguments, found",
    [
        ([], "--track is missing"),
        (["--track=VA"], "--predictions is missing"),
        (["--track=VA", "--check=s.txt"], "--example is missing"),
        (["--track=VA", "--predictions=p", "--example=e"], "--out is missing"),
        (["--track=VA", "--check=s", "--example=e", "--out=o"], "--check does not go with --out"),
        (["--track=VA", "--check=s.txt", "--example=e.txt", "more"], "unexpected argument 'more'"),
        (["--track=VA", "--check=absent.txt", "--example=e.txt"], "absent.txt: cannot be read"),
        (["--track=VA", "--predictions=p", "--example=absent.txt", "--out=o"], "absent.txt"),
        (["--track=VA", "--thresholds=0.5", "--predictions=p", "--example=e", "--out=o"],
         "VA is not decided by thresholds"),
        (["--track=MTL"], "EXPR"),
        (["--wrong"], "wrong"),
    ],
)  # fmt: skip
def test_bad_flags_give_one_line(capsys, arguments, found):
    assert found in refusal(capsys, *arguments)


def test_the_command_starts_without_jax(tmp_path):
    example, _, _ = make_case(tmp_path, EMI)
    code = (
        "import sys, abaw_jax.submission as s; status = s.main();"
        "sys.exit(status or 100 * ('jax' in sys.modules or 'cv2' in sys.modules))"
    )
    flags = ["--track=emi", f"--example={example}", f"--predictions={tmp_path / 'p'}"]
    flags.append(f"--out={tmp_path / 's.csv'}")
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and "4 clips written" in done.stdout
    command = [sys.executable, "-m", "abaw_jax.submission", "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "--fallback" in done.stdout
