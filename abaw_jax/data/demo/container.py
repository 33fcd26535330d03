"""The recordings' containers: a small picture at the right rate and count, and the sound.

And the clips' sound alone.
"""

import os
import pathlib
from fractions import Fraction

import av
import numpy as np

from abaw_jax.data.demo import settings

CHUNK = 1024  # samples a packet: AAC's frame


def write_container(
    path: pathlib.Path, pictures: np.ndarray, rate: Fraction, sound: np.ndarray | None
) -> None:
    """Write an .mp4 (MPEG-4 + AAC) or .avi (MPEG-4 + PCM), whole or not at all.

    pictures uint8 (n, H, W, 3) BGR; rate in frames a second; sound int16 (samples,) at 16 kHz, or
    None for a file without audio track.
    """
    beside = path.with_name(f".{path.name}.part")
    kind = path.suffix[1:]
    with av.open(os.fspath(beside), "w", format=kind) as file:
        video = file.add_stream("mpeg4", rate=rate)
        video.height, video.width = pictures.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.bit_rate = 200_000
        audio = None
        if sound is not None:
            codec = "aac" if kind == "mp4" else "pcm_s16le"
            audio = file.add_stream(codec, rate=settings.SOUND_RATE, layout="mono")
        for picture in pictures:
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        file.mux(video.encode())
        if audio is not None:
            _encode(file, audio, sound)
    os.replace(beside, path)


def write_sound(path: pathlib.Path, sound: np.ndarray) -> None:
    """Write an .mp3, whole or not at all: int16 (samples,) at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    with av.open(os.fspath(beside), "w", format="mp3") as file:
        _encode(file, file.add_stream("mp3", rate=settings.SOUND_RATE, layout="mono"), sound)
    os.replace(beside, path)


def _encode(file, audio, sound: np.ndarray) -> None:
    """Encode the samples in chunks and close the stream."""
    for start in range(0, len(sound), CHUNK):
        frame = av.AudioFrame.from_ndarray(
            sound[None, start : start + CHUNK], format="s16", layout="mono"
        )
        frame.sample_rate = settings.SOUND_RATE
        frame.pts = start
        frame.time_base = Fraction(1, settings.SOUND_RATE)
        file.mux(audio.encode(frame))
    file.mux(audio.encode())
