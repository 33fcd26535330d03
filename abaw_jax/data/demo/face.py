"""Draws a face from action units. FACS (Ekman & Friesen 1978) says what each unit moves.

Drawing is in pixels of the aligned 112-pixel crop, the origin between the eyes' centres; a `Canvas`
maps them to the supersampled picture through the head's pose. Skin is drawn flat and lit at the
end, so covering lids and folds blend in.
"""

import cv2
import numpy as np

from abaw_jax.data.demo import settings
from abaw_jax.data.demo.people import AUS, FACE, Person, Scene

FIXED = 4  # fractional bits of OpenCV's coordinates
T = np.linspace(-1, 1, 17)  # along a mouth or an eye
BELL = 1 - T**2
HALF = np.linspace(0, 1, 9)  # along a brow, from the nose outwards
TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)
ORIGIN = np.array([settings.CROP / 2, 0.0])
WHITE, DARK, TONGUE = (228, 232, 235), (34, 18, 40), (96, 84, 176)


class Canvas:
    """A picture and the pose that places the head in it."""

    def __init__(self, image: np.ndarray, pose: np.ndarray):
        """image uint8 (S, S, 3), drawn into; pose as Story.pose's rows."""
        self.image = image
        self.scale = image.shape[0] / settings.CROP
        size = settings.ZOOM * np.exp(pose[3])
        angle = np.deg2rad(pose[2])
        cos, sin = np.cos(angle) * size, np.sin(angle) * size
        centre = np.array([56.0, 62.0])
        self.matrix = np.array([[cos, -sin], [sin, cos]]).T
        self.offset = np.array([56.0, 58.0]) + pose[:2] - centre @ self.matrix
        self.turn = pose[4:6]

    def place(self, points: np.ndarray, depth: float = 0.0) -> np.ndarray:
        """Points (n, 2) of the crop -> fixed-point pixels; nearer ones (depth 1) turn further."""
        moved = points + (self.turn * (7.0, 5.0)) * depth
        placed = (moved @ self.matrix + self.offset) * (self.scale * (1 << FIXED))
        return np.rint(placed).astype(np.int32)

    def fill(self, points: np.ndarray, colour: tuple, depth: float = 0.0) -> None:
        """A filled polygon."""
        placed = self.place(points, depth)
        cv2.fillPoly(self.image, [placed], colour, cv2.LINE_AA, FIXED)

    def line(self, points: np.ndarray, colour: tuple, width: float, depth: float = 0.0) -> None:
        """An open line, `width` pixels of the crop wide."""
        thick = max(1, round(width * self.scale))
        placed = self.place(points, depth)
        cv2.polylines(self.image, [placed], False, colour, thick, cv2.LINE_AA, FIXED)

    def disc(self, centre: tuple, radius: float, colour: tuple, depth: float = 0.0) -> None:
        """A filled circle."""
        at = self.place(np.array([centre]), depth)[0]
        size = round(radius * self.scale * (1 << FIXED))
        cv2.circle(self.image, at.tolist(), size, colour, -1, cv2.LINE_AA, FIXED)


def shade(colour: tuple, factor: float, towards: tuple | None = None, part: float = 0.0) -> tuple:
    """A colour times `factor`, then mixed with `towards`."""
    out = np.asarray(colour, float) * factor
    if towards is not None:
        out = out * (1 - part) + np.asarray(towards, float) * part
    return tuple(float(v) for v in np.clip(out, 0, 255))


def arc(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    """Points (n, 2) from coordinates."""
    return np.stack(np.broadcast_arrays(x, y), axis=1)


def draw_face(
    person: Person,
    scene: Scene,
    shown: np.ndarray,
    pose: np.ndarray,
    gaze: np.ndarray = (0, 0),
    blink: float = 0.0,
) -> np.ndarray:
    """One clean crop: uint8 (112, 112, 3) BGR, lit but without the camera's faults.

    shown (12,) action units in [0, 1]; pose (6,) as in Story; gaze (2,) in [-1, 1]; blink 0 to 1.
    """
    side = settings.CROP * settings.SUPERSAMPLING
    image = cv2.resize(scene.background, (side, side), interpolation=cv2.INTER_LINEAR)
    canvas = Canvas(image, pose + scene.pose)
    unit = dict(zip(AUS, (float(v) for v in shown), strict=True))
    shape = dict(zip(FACE, (float(v) for v in person.face), strict=True))
    skin, hair = person.skin[::-1], person.hair[::-1]
    _head(canvas, person, scene, shape, unit, skin, hair)
    _folds(canvas, shape, unit, skin)
    for side_of in (-1, 1):
        _eye(canvas, person, shape, unit, skin, side_of, gaze, blink)
    _nose(canvas, shape, unit, skin)
    _mouth(canvas, shape, unit, skin, _chin_colour(person), person.lipstick)
    for side_of in (-1, 1):
        _brow(canvas, shape, unit, hair, skin, side_of)
        _glasses(canvas, person.glasses, shape, side_of)
    _front(canvas, person, shape, hair)
    small = cv2.resize(image, (settings.CROP, settings.CROP), interpolation=cv2.INTER_AREA)
    return _light(small, canvas, scene)


def _chin_colour(person: Person) -> tuple:
    """BGR of the lower face: skin, or skin under a beard."""
    if not person.beard:
        return person.skin[::-1]
    return shade(person.skin[::-1], 0.95, person.hair[::-1], 0.75 * person.beard)


def _outline(shape: dict, unit: dict) -> np.ndarray:
    """The face's contour; AU26 lowers the chin, AU12 and AU6 widen the cheeks."""
    chin = shape["chin"] + 9 * unit[26] + 1.5 * unit[25]
    middle = 50.0
    sin, cos = np.sin(TURN), np.cos(TURN)
    lower = np.clip(sin, 0, 1)
    cheek = shape["cheek_width"] + 1.5 * unit[12] * lower * (1 - lower) * 4
    width = cheek + (shape["jaw_width"] - shape["cheek_width"]) * lower**0.8
    y = np.where(sin > 0, middle + (chin - middle) * sin, middle + (middle - shape["top"]) * sin)
    power = np.where(sin > 0, 0.78, 0.85)
    return arc(ORIGIN[0] + width * np.sign(cos) * np.abs(cos) ** power, y)


def _head(
    canvas: Canvas, person: Person, scene: Scene, shape: dict, unit: dict, skin: tuple, hair: tuple
) -> None:
    """Neck, clothes, hair behind, ears, face, beard."""
    canvas.fill(np.array([(38, 92), (74, 92), (78, 150), (34, 150)]), shade(skin, 0.78))
    canvas.fill(
        np.array([(-30, 170), (-20, 124), (34, 110), (56, 120), (78, 110), (132, 124), (142, 170)]),
        scene.clothes,
    )
    outline = _outline(shape, unit)
    if person.hair_style != "bald":
        grown = (outline - (56, 50)) * (1.13, 1.12) + (56, 47)
        if person.hair_style == "long":
            grown[:, 1] = np.where(grown[:, 1] > 60, 60 + (grown[:, 1] - 60) * 1.3, grown[:, 1])
            grown[:, 0] = 56 + (grown[:, 0] - 56) * np.where(grown[:, 1] > 60, 1.12, 1.0)
        else:
            grown = grown[grown[:, 1] < 62]
            order = np.argsort(np.arctan2(grown[:, 1] - 62, grown[:, 0] - 56))
            grown = grown[order]
        canvas.fill(grown, shade(hair, 0.85))
    for side in (-1, 1):
        canvas.disc((56 + side * (shape["cheek_width"] + 0.5), 55), 6.0, shade(skin, 0.85), -0.4)
    canvas.fill(outline, skin)
    if person.beard:
        lower = outline[outline[:, 1] > 66]
        lower = lower[np.argsort(-lower[:, 0])]
        edge = np.array([(30, 84), (38, 76), (56, 79), (74, 76), (82, 84)])
        canvas.fill(np.concatenate([lower, edge]), _chin_colour(person), 0.2)
    if person.moustache:
        y = shape["mouth_height"] - 7
        canvas.fill(
            arc(56 + 15 * np.concatenate([T, T[::-1]]), 0)
            + arc(0 * np.concatenate([T, T]), np.concatenate([y + 3 * T**2, y + 4 + 3 * T**2])),
            shade(skin, 0.9, hair, 0.8),
            0.8,
        )


def _eye(
    canvas: Canvas,
    person: Person,
    shape: dict,
    unit: dict,
    skin: tuple,
    side: int,
    gaze: np.ndarray,
    blink: float,
) -> None:
    """Lids and eyeball. AU7 narrows, AU6 pushes the lower lid up, raised brows widen (AU5)."""
    x = 56 + side * shape["eye_distance"]
    y = shape["eye_height"]
    half = shape["eye_width"]
    widen = min(unit[1], unit[2])  # AU5 goes with 1 + 2 in surprise and fear
    upper = 5.4 * shape["eye_opening"] * (1 + 0.7 * widen - 0.55 * unit[7] - 0.2 * unit[6])
    droop = min(unit[1], unit[15]) * (1 - unit[2])  # sadness's heavy lids (AU43)
    upper = upper * (1 - 0.4 * droop) * (1 - blink) - 0.6 * blink
    lower = 3.3 * (1 + 0.3 * widen - 0.6 * unit[7] - 0.7 * unit[6]) * (1 - 0.5 * blink)
    slant = -0.7 * T * side
    top = arc(x + half * T, y + slant - upper * BELL**0.8)
    bottom = arc(x + half * T, y + slant + lower * BELL)
    canvas.fill(np.concatenate([top, bottom[::-1]]), shade(WHITE, 0.94), 0.5)
    at = (x + 2.6 * gaze[0], y - 0.6 + 1.2 * gaze[1])
    canvas.disc(at, 4.2, person.iris[::-1], 0.5)
    canvas.disc(at, 2.0, (16, 14, 14), 0.5)
    canvas.disc((at[0] + 1.2, at[1] - 1.3), 0.8, (250, 250, 250), 0.5)
    lid = shade(skin, 0.86)
    roof = arc(x + (half + 0.8) * T, y + slant - 9.0 * BELL**0.6 - 0.5)
    floor = arc(x + (half + 0.8) * T, y + slant + 6.5 * BELL**0.6 + 0.3)
    canvas.fill(np.concatenate([top, roof[::-1]]), lid, 0.5)
    canvas.fill(np.concatenate([bottom, floor[::-1]]), shade(skin, 0.95), 0.5)
    canvas.line(top, (30, 26, 28), 0.9, 0.5)
    canvas.line(bottom, shade(skin, 0.62), 0.5, 0.5)
    crease = arc(x + half * T, y + slant - (upper + 2.6) * BELL**0.8)
    canvas.line(crease, shade(skin, 0.68), 0.5, 0.5)


def _glasses(canvas: Canvas, kind: int, shape: dict, side: int) -> None:
    """One side of a pair: 0 none, 1 clear, 2 dark."""
    x, y = 56 + side * shape["eye_distance"], shape["eye_height"] + 1
    if kind == 2:
        canvas.fill(arc(x + 13 * np.cos(TURN), y + 10 * np.sin(TURN)), (36, 30, 30), 0.8)
    if kind:
        ring = arc(x + 13.2 * np.cos(TURN), y + 10 * np.sin(TURN))
        canvas.line(np.concatenate([ring, ring[:1]]), (50, 40, 36), 1.0, 0.8)
        canvas.line(np.array([(56 + side * 5, y - 2), (56, y - 3.5)]), (50, 40, 36), 1.0, 0.9)


def _folds(canvas: Canvas, shape: dict, unit: dict, skin: tuple) -> None:
    """Wrinkles: forehead (1, 2), glabella (4), under the eyes (6), nose to mouth (10, 12, 6)."""
    y = shape["eye_height"]
    rise = 0.5 * (unit[1] + unit[2])
    for k, height in enumerate((20.0, 25.0)):
        inner = unit[1] if k else rise
        if inner > 0.15:
            ripple = arc(56 + 20 * T, y - height - 2 * rise + 1.5 * T**2)
            canvas.line(ripple, shade(skin, 1 - 0.3 * inner), 0.9, 0.3)
    for side in (-1, 1):
        if unit[4] > 0.15:
            frown = np.array([(56 + side * 2.4, y - 13), (56 + side * 1.6, y - 6)])
            canvas.line(frown, shade(skin, 1 - 0.42 * unit[4]), 1.0, 0.6)
        x = 56 + side * shape["eye_distance"]
        if unit[6] > 0.1:
            pouch = arc(x + 8.5 * T, y + 4.5 + 3.2 * BELL)
            canvas.line(pouch, shade(skin, 1 - 0.34 * unit[6]), 1.1, 0.5)
            for k in (-1, 0, 1):
                foot = np.array([(x + side * 11, y + 0.8 * k), (x + side * 15, y + 2.2 * k)])
                canvas.line(foot, shade(skin, 1 - 0.3 * unit[6]), 0.6, 0.3)
            blush = shade(skin, 1.06, (90, 90, 220), 0.1 * unit[6])
            swell = arc(x + side * 3 + 8 * np.cos(TURN), y + 17 + 4.5 * np.sin(TURN))
            canvas.fill(swell, blush, 0.6)
        deep = min(1.0, 0.18 + 0.7 * unit[12] + 0.82 * unit[10] + 0.2 * unit[6])
        wide = shape["nose_width"] + 1.5 * unit[10]
        out = shape["mouth_width"] + 3 + 4 * unit[12]
        end = shape["mouth_height"] - 4 - 4 * unit[12]
        bow = 3 * unit[12] + 2 * unit[10]
        x0, y0 = wide + 1.5, 66 - 2.5 * unit[10]
        fold = arc(
            56 + side * (x0 + (out - x0) * HALF + bow * HALF * (1 - HALF) * 2),
            y0 + (end - y0) * HALF,
        )
        canvas.line(fold, shade(skin, 1 - 0.3 * deep), 1.1, 0.7)


def _nose(canvas: Canvas, shape: dict, unit: dict, skin: tuple) -> None:
    """Bridge, tip and wings; AU10 (with 9) lifts the wings and wrinkles the bridge."""
    lift = 3.8 * unit[10]
    wide = shape["nose_width"] * (1 + 0.14 * unit[10])
    tip = 69 - 0.6 * lift
    bridge = np.array([(54, 48), (53, 58), (56 - wide * 0.7, tip - 2), (56, tip + 3)])
    canvas.line(bridge[:3], shade(skin, 0.84), 1.2, 0.8)
    canvas.fill(
        np.array([(55, 48), (57, 48), (58.2, tip - 2), (54.2, tip - 2)]), shade(skin, 1.07), 0.9
    )
    for side in (-1, 1):
        wing = arc(
            56 + side * (wide - 1.2 + 2.0 * np.cos(TURN[::3])),
            tip - 0.4 - lift + 2.8 * np.sin(TURN[::3]),
        )
        canvas.fill(wing, shade(skin, 0.88), 0.9)
        hole = arc(
            56 + side * (wide * 0.45 + 1.7 * np.cos(TURN[::3])),
            tip + 1.8 - 0.4 * lift + 1.0 * np.sin(TURN[::3]),
        )
        canvas.fill(hole, shade(skin, 0.42), 1.0)
        for k in range(3):
            if unit[10] > 0.2:
                crease = np.array(
                    [(56 + side * 1.2, 54 + 3 * k), (56 + side * 5.2, 52.4 + 3.2 * k)]
                )
                canvas.line(crease, shade(skin, 1 - 0.45 * unit[10]), 0.9, 0.8)


def _mouth(
    canvas: Canvas, shape: dict, unit: dict, skin: tuple, chin: tuple, lipstick: float
) -> None:
    """Lips, jaw: 12 corners out and up, 15 down, 23 narrow, 24 pressed, 25 parted, 26 dropped."""
    half = shape["mouth_width"] * (
        1 + 0.34 * unit[12] - 0.24 * unit[24] - 0.18 * unit[23] + 0.05 * unit[15] - 0.12 * unit[26]
    )
    half *= 1 + 0.3 * min(unit[1], unit[4], unit[25])  # fear's stretch (AU20)
    y = shape["mouth_height"] + 1.5 * unit[26] - 1.0 * unit[24]
    x = 56 + half * T
    corner = -9.0 * unit[12] * np.abs(T) ** 1.8 + 9.5 * unit[15] * np.abs(T) ** 2.4
    thick = shape["lips"] * (1 - 0.6 * unit[23]) * (1 - 0.65 * unit[24])
    closed = 1 - 0.85 * unit[24]
    lift = 6.0 * unit[10] * (1 - np.abs(np.abs(T) - 0.4)) * BELL**0.5
    up = (2.2 * unit[25] * closed + 1.8 * unit[26]) * BELL + 0.75 * lift * min(1.0, 2 * unit[25])
    down = (5.2 * unit[25] * closed + 12.5 * unit[26]) * BELL**0.7
    bow = thick * (1 - np.abs(T) ** 2.2) * (1 - 0.22 * np.exp(-((T / 0.16) ** 2)))
    inner_top, inner_low = y + corner - up, y + corner + down
    outer_top = inner_top - bow - 0.5 * lift
    outer_low = inner_low + 1.25 * thick * BELL**0.8 - 0.8 * unit[24] * BELL
    lips = shade(skin, 0.78, (92, 84, 190), 0.32 + 0.45 * lipstick)
    canvas.fill(np.concatenate([arc(x, outer_top), arc(x, outer_low)[::-1]]), lips, 0.8)
    gap = float((inner_low - inner_top).max())
    if gap > 0.7:
        inside = np.concatenate([arc(x, inner_top), arc(x, inner_low)[::-1]])
        canvas.fill(inside, DARK, 0.8)
        if gap > 6:
            tongue = inner_low - np.minimum(0.4 * gap, 5) * BELL**2
            canvas.fill(
                np.concatenate([arc(x, tongue), arc(x, inner_low)[::-1]])[2:-2], TONGUE, 0.8
            )
        teeth = np.minimum(0.55 * (inner_low - inner_top), 3.6 + 1.2 * unit[12])
        canvas.fill(
            np.concatenate([arc(x, inner_top), arc(x, inner_top + teeth)[::-1]]), WHITE, 0.8
        )
    else:
        canvas.line(arc(x, inner_top), shade(lips, 0.5), 0.9, 0.8)
    for side in (-1, 1):
        pull = max(unit[15], 0.8 * unit[12], 0.6 * unit[24])
        if pull > 0.2:
            tip = y + corner[-1]
            down_by = 3.5 * unit[15] - 2.0 * unit[12]
            mark = np.array(
                [(56 + side * (half + 0.8), tip - 1), (56 + side * (half + 2), tip + down_by)]
            )
            canvas.line(mark, shade(chin, 1 - 0.4 * pull), 0.9, 0.8)
    if max(unit[23], unit[24]) > 0.2:
        strength = max(unit[23], unit[24])
        bulge = arc(56 + 9 * T, float(outer_low.max()) + 2.5 - 0.8 * BELL)
        canvas.line(bulge, shade(chin, 1 - 0.4 * strength), 1.0, 0.7)
    if unit[15] > 0.2:
        boss = arc(56 + 8 * T, float(outer_low.max()) + 5.0 - 2.0 * BELL)
        canvas.line(boss, shade(chin, 1 - 0.22 * unit[15]), 1.0, 0.6)


def _brow(canvas: Canvas, shape: dict, unit: dict, hair: tuple, skin: tuple, side: int) -> None:
    """A brow: AU1 lifts its inner end, AU2 its outer, AU4 lowers it and draws it to the middle."""
    x = 56 + side * (shape["eye_distance"] - 10.5 + 20.5 * HALF - 4.5 * unit[4] * (1 - HALF))
    y = shape["eye_height"] - shape["brow_height"] - 2.2 * np.sin(np.pi * HALF**0.8)
    y = y - 9.0 * unit[1] * (1 - HALF) ** 1.2 - 9.0 * unit[2] * HALF**0.7 * (1.25 - 0.4 * HALF)
    y = y + unit[4] * (9.0 - 6.5 * HALF) + 1.5 * HALF
    thick = shape["brow_thickness"] * (1.0 - 0.72 * HALF**2)
    colour = shade(hair, 0.55, (20, 22, 30), 0.3)
    canvas.fill(np.concatenate([arc(x, y - thick / 2), arc(x, y + thick / 2)[::-1]]), colour, 0.6)


def _front(canvas: Canvas, person: Person, shape: dict, hair: tuple) -> None:
    """Hair over the forehead."""
    if person.hair_style == "bald":
        return
    edge = shape["cheek_width"] + 2
    x = 56 + edge * T
    low = {"short": 15.0, "fringe": 27.0, "long": 17.0, "side": 20.0}[person.hair_style]
    line = low + 22 * np.abs(T) ** 5
    if person.hair_style == "side":
        line = low - 6 + 9 * (T + 0.4) ** 2 + 16 * np.abs(T) ** 7
    if person.hair_style == "fringe":
        line = line + 1.2 * np.cos(14 * T)
    top = shape["top"] - 6 + 40 * np.abs(T) ** 3
    canvas.fill(np.concatenate([arc(x, line), arc(x, np.minimum(top, line))[::-1]]), hair, 0.25)


_GRID = np.stack(np.meshgrid(np.arange(settings.CROP), np.arange(settings.CROP)), axis=-1)


def _light(image: np.ndarray, canvas: Canvas, scene: Scene) -> np.ndarray:
    """The scene's light: a gradient across the picture and the head's roundness."""
    x, y, contrast = scene.light
    at = (_GRID - 56.0).astype(np.float32) / 56.0
    gradient = 1 + contrast * (at[..., 0] * x + at[..., 1] * y)
    rim = 1.06 - 0.2 * np.square(at).sum(axis=-1).clip(0, 1.2)
    gain = (gradient * rim)[..., None] * scene.cast
    return np.clip(image * gain, 0, 255).astype(np.uint8)
