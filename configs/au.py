"""AU: twelve action units of Aff-Wild2, each on or off in a frame, from crops to submission.

    python -m abaw_jax.main --config=configs/au.py                  the demo corpus
    python -m abaw_jax.main --config=configs/au.py:paper --config.corpus.root=DIR

System `mae_transformer`, as in configs/expr.py, with binary cross-entropy as the loss; box,
Gaussian or median smoothing, and a threshold for each unit, chosen on the validation set. At paper
scale its values are those of `ctyun` (arXiv 2403.11440) without the temporal convolutions; what
that paper does not publish says so.

The argument names a system, a scale, or both as `ctyun,paper`. The systems `ctyun`, `fuxi`,
`masked_vit` and `hsemotion` are in configs/systems, at the scales demo, tiny and paper. Scales:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    paper   Aff-Wild2 itself, ViT-B/16 at 224 pixels: an accelerator

With the word `together`, as in `demo,together`, VA, EXPR and AU are learnt by one model; this track
decides which parameters are kept, and its predictions go on. Of `ctyun` that holds for the sequence
model: its encoder learns EXPR alone.

With the name of an ablation, as in `ctyun,without_tcn`, it is the system without one of its
parts; configs/ablations.py has them.

What is not set here is in configs/base.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config(arg: str = "") -> ConfigDict:
    """The config of a system at a scale. Raises ValueError for any other argument."""
    system, scale = base.parse(arg, "au", tuple(SCALES))
    config = base.sections("au", system, scale)
    config.corpus.update(
        test_list="names_of_videos_in_each_test_set/"
        "Action_Unit_Detection_Challenge_test_set_release.txt",
        test_example="test_set_examples/CVPR_6th_ABAW_AU_test_set_example.txt",
    )
    for section in (config.finetune, config.sequence):
        section.update(
            loss="binary_cross_entropy",  # or focal, asymmetric, soft_f1
            # Of the rows in which a unit is on: none, ratio, ratio_sqrt, or twelve numbers. Most
            # units are off in most rows.
            positive_weights="ratio_sqrt",
        )
    config.ensemble.search_thresholds = True  # a threshold a unit; False: 0.5 for all
    SCALES[scale](config)
    base.as_system(config, scale)
    base.together(config, arg, scale)
    base.ablate(config, arg, scale)
    return config.lock()


SCALES = {"demo": base.demo, "tiny": base.tiny, "paper": base.paper}
