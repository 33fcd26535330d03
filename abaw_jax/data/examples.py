"""One record as bytes: the tf.train.Example wire format that TFDS reads, without TensorFlow.

A record is the Protocol Buffers message `Example{features{map<string, Feature>}}` of TensorFlow's
example.proto and feature.proto; `Feature` holds a list of byte strings (field 1), of float32
(field 2) or of int64 (field 3). Written by hand because one schema is needed, its bytes have to
be the same in every run, and reading it this way takes a few microseconds.
"""

import struct
import zlib
from collections.abc import Mapping

import cv2
import numpy as np
import simplejpeg

from abaw_jax.errors import InputError

_PNG = b"\x89PNG\r\n\x1a\n"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def encode_record(image: bytes, video: str, frame: int, labels: Mapping[str, np.ndarray]) -> bytes:
    """Serialise one frame.

    Args:
      image: a JPEG or PNG file, as found.
      video: the video's name, '' in an image set.
      frame: 1-based frame number.
      labels: track key -> (K,) vector, integers or floats.
    """
    features = {"image": _field(1, _field(1, image)), "video": _field(1, _field(1, video.encode()))}
    features["frame"] = _field(3, _field(1, _varint(int(frame))))
    for key, values in labels.items():
        if np.issubdtype(values.dtype, np.floating):
            features[key] = _field(2, _field(1, values.astype("<f4").tobytes()))
        else:
            features[key] = _field(3, _field(1, b"".join(_varint(v) for v in values.tolist())))
    entries = (_field(1, _field(1, key.encode()) + _field(2, features[key])) for key in features)
    return _field(1, b"".join(entries))


def decode_record(raw: bytes) -> dict:
    """Read one record: `image` bytes, `video` str, `frame` int, every other key a NumPy vector.

    Labels come as int32 (K,) or float32 (K,). Raises InputError where the bytes are no such record.
    """
    try:
        record = dict(_entries(raw))
        record["video"] = record["video"].decode()
        record["frame"] = int(record["frame"][0])
    except (IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"record of {len(raw)} bytes: not a frame's record ({error!r}); prepare the corpus anew"
        ) from error
    return record


def image_fault(image: bytes) -> str | None:
    """Say why an image file cannot be used, None if it can.

    JPEG data are decoded in full (to grey, which takes a third of the time of colour and still
    reads every coefficient): a cut file is found in no other way. A PNG's checksums are compared.
    """
    if not image:
        return "empty file"
    if image.startswith(b"\xff\xd8"):
        try:
            space = simplejpeg.decode_jpeg_header(image)[2]
            if space in ("CMYK", "YCCK"):
                return f"colour space {space}"
            simplejpeg.decode_jpeg(image, "GRAY")
        except ValueError as error:
            return " ".join(str(error).split())
        return None
    if image.startswith(_PNG):
        return _png_fault(image)
    return "neither JPEG nor PNG"


def _png_fault(image: bytes) -> str | None:
    at = len(_PNG)
    while at + 12 <= len(image):
        (length,) = struct.unpack_from(">I", image, at)
        end = at + 12 + length
        if end > len(image):
            break
        if zlib.crc32(image[at + 4 : end - 4]) != struct.unpack_from(">I", image, end - 4)[0]:
            return f"PNG checksum differs at byte {at}"
        if image[at + 4 : at + 8] == b"IEND":
            decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
            return "PNG cannot be decoded" if decoded is None else None
        at = end
    return "PNG ends early"


def _varint(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    value &= 0xFFFFFFFFFFFFFFFF  # int64 in two's complement, as the format asks
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited field. A packed list of numbers has the same form."""
    return bytes((number << 3 | _BYTES,)) + _varint(len(payload)) + payload


def _entries(raw: bytes):
    for _, features in _fields(raw):
        for _, entry in _fields(features):
            (_, key), (_, feature) = _fields(entry)
            for kind, values in _fields(feature):
                yield key.decode(), _values(kind, values)


def _values(kind: int, payload: bytes):
    """The content of a Feature: bytes (the first of the list), or a vector."""
    if kind == 1:
        return next(value for _, value in _fields(payload))
    if kind == 2:
        return np.frombuffer(b"".join(v for _, v in _fields(payload)), "<f4").astype(np.float32)
    numbers = []
    for _, packed in _fields(payload):
        if isinstance(packed, int):  # a writer may leave int64 lists unpacked
            numbers.append(packed)
            continue
        at = 0
        while at < len(packed):
            value, at = _read_varint(packed, at)
            numbers.append(value)
    return np.array(numbers, np.uint64).astype(np.int64).astype(np.int32)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = data[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    shift = 7
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _fields(data: bytes) -> list[tuple[int, bytes | int]]:
    """Split a message into (field number, payload)."""
    fields, at, size = [], 0, len(data)
    while at < size:
        tag, at = _read_varint(data, at)
        wire = tag & 7
        if wire == _BYTES:
            length, at = _read_varint(data, at)
            if at + length > size:
                raise ValueError("a field runs past the end")
            fields.append((tag >> 3, data[at : at + length]))
            at += length
        elif wire == _VARINT:
            value, at = _read_varint(data, at)
            fields.append((tag >> 3, value))
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
            fields.append((tag >> 3, data[at : at + length]))
            at += length
        else:
            raise ValueError(f"wire type {wire}")
    return fields
