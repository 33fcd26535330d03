"""requirements.txt and setup.cfg name the same packages and ranges."""

import configparser
import pathlib

ROOT = pathlib.Path(__file__).parents[1]


def lines(text):
    return {line.strip() for line in text.splitlines() if line.strip()}


def test_requirements_agree():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = lines(setup["options"]["install_requires"])
    declared |= lines(setup["options.extras_require"]["test"])
    listed = lines((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    listed = {line for line in listed if not line.startswith("#")}
    assert listed == declared | {"-e ."}
