"""VA: valence and arousal of Aff-Wild2, two numbers in [-1, 1] a frame, from crops to submission.

    python -m abaw_jax.main --config=configs/va.py                  the demo corpus
    python -m abaw_jax.main --config=configs/va.py:paper --config.corpus.root=DIR

System `mae_transformer`, as in configs/expr.py, with 1 - CCC as the loss; box, Gaussian or median
smoothing chosen on the validation set. At demo scale this system has four sequence models, of face,
sound and words together and of each alone, weighted on the validation set;
--config.sequence.modalities='("face",)' --config.sequence.apart=False takes the face alone, as it
must where there are no transcripts. At paper scale its values are those of `ctyun` (arXiv
2403.11440) without the temporal convolutions; what that paper does not publish says so.

The argument names a system, a scale, or both as `ctyun,paper`. The systems `ctyun`, `fuxi`,
`masked_vit` and `hsemotion` are in configs/systems, at the scales demo, tiny and paper. Scales:

    demo    default. Drawn faces at 48 pixels, a small ViT: minutes on two cores
    tiny    seconds; for tests. Its scores mean nothing
    paper   Aff-Wild2 itself, ViT-B/16 at 224 pixels: an accelerator

With the word `together`, as in `demo,together`, each model learns VA, EXPR and AU; this track
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
    system, scale = base.parse(arg, "va", tuple(SCALES))
    config = base.sections("va", system, scale)
    config.corpus.update(
        test_list="names_of_videos_in_each_test_set/"
        "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
        test_example="test_set_examples/CVPR_6th_ABAW_VA_test_set_example.txt",
    )
    for section in (config.finetune, config.sequence):
        section.update(
            loss="ccc",  # 1 - mean CCC of the batch; or ccc_sequence, of each window, pearson, mse
            output="tanh",  # or clip, linear
        )
    # Give predictions the mean and deviation of the training labels; see evaluation/matching.py.
    config.ensemble.match = False
    SCALES[scale](config)
    base.as_system(config, scale)
    base.together(config, arg, scale)
    base.ablate(config, arg, scale)
    return config.lock()


def _demo(config: ConfigDict) -> None:
    """Four sequence models in place of one; each is the shorter for it."""
    base.demo(config)
    config.sequence.update(
        modalities=("face", "sound", "words"), apart=True, epochs=12.0, evaluations=5
    )


SCALES = {"demo": _demo, "tiny": base.tiny, "paper": base.paper}
