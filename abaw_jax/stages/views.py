"""Views of a face in a recipe: the stage `finetune` tunes an encoder on each of `finetune.views`,
the first of which is the whole face, and `extract` keeps what each makes of the crops.

A view is a modality of the sequence model, by its name. Of the whole face the folders are
finetune/model, extract/features and extract/predictions; of any other view finetune/<view>/model,
extract/<view> and extract/predictions_<view>.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

from abaw_jax.data.views import FACE, VIEWS
from abaw_jax.errors import InputError
from abaw_jax.recipe import Context


def check_views(config: Any) -> None:
    """Raise InputError for views that there are not, or without the whole face as the first."""
    views = tuple(config.finetune.views)
    if views[:1] != (FACE,) or set(views) - set(VIEWS) or len(set(views)) < len(views):
        others = ", ".join(name for name in VIEWS if name != FACE)
        raise InputError(
            f"config.finetune.views: {views}; expected {FACE!r}, and after it any of {others}, "
            "each once"
        )


def further_views(context: Context) -> Sequence[str]:
    """The views besides the whole face."""
    return context.config.finetune.views[1:]


def tuning_folder(context: Context, view: str) -> pathlib.Path:
    """Where a view's encoder is tuned; it holds `model`."""
    folder = context.folder("finetune")
    return folder if view == FACE else folder / view


def features_folder(context: Context, view: str) -> pathlib.Path:
    """Where a view's features lie, a folder a split."""
    return context.folder("extract") / ("features" if view == FACE else view)


def predictions_folder(context: Context, view: str) -> pathlib.Path:
    """Where the predictions of a view's own classifier lie, a folder a split."""
    name = "predictions" if view == FACE else f"predictions_{view}"
    return context.folder("extract") / name
