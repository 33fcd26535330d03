"""Every constant that makes the demo corpus easy or hard, with its reason.

Times are in frames, not seconds: windows of models and widths of smoothing filters are counted in
frames, and what they can and cannot see is what these constants decide.

Aimed at, on the default size, macro F1 on validation: linear on pixels below .45
(benchmarks/demo_linear.py: .35), the demo's small ViT on single frames above that, filters over its
probabilities a few points more (they help neither short episodes nor late labels), a sequence model
over its features at least .60.

On CE, default size, the same linear classifier comes to .41 (chance .14). On EMI ridge regression
comes to a mean Pearson of .37 from a clip's mean face (24 x 24 grey pixels), .19 from mean and .9
quantile of 12 bands of its sound, .53 from its words' counts, and .59 from face and words together.
"""

# Part of the stamp. Raise a corpus's whenever the same seed would give a file other bytes; not for
# a file more, without which corpora of before are as good as they were.
VERSIONS = {"expr": 3, "ce": 3, "emi": 1}

CROP = 112  # Aff-Wild2's aligned crops, pixels
SUPERSAMPLING = 2  # faces are drawn at 224 and area-averaged: movements below a pixel stay visible
ZOOM = 1.2  # the face fills the crop, as an aligner's does
THUMBNAIL = 64  # side of the picture in the containers: they are there for sound, rate and count

# ---- How many videos (train, validation, test) and frames a video (least, most) -----------------
SIZES = {
    "tiny": ((8, 4, 2), (36, 44)),  # tests: a few seconds
    "default": ((240, 28, 8), (70, 120)),  # 24 k crops, a minute of one core
    "large": ((960, 280, 80), (70, 120)),
}
CLIP_SIZES = {  # clips of EMI and their frames
    "tiny": ((20, 12, 6), (8, 12)),
    "default": ((400, 80, 30), (20, 28)),  # 10.8 k crops
    "large": ((2400, 800, 300), (20, 60)),
}
CLIPS_PER_PERSON = 2
# Images beside CE's videos, of each of eleven compounds and of seven basic expressions: train, test
STILLS = {
    "tiny": (6, 3),
    "default": (200, 50),  # RAF-DB has 3,162 and 792 compounds in all, 12,271 and 3,068 others
    "large": (600, 150),
}
PAIR_SHARE = 0.14  # videos that show two people (`_left`, `_right`)
# Nobody twice: a small ViT learns who is who where people are few. Without pre-training and from as
# many images in all it came to .24 frame by frame with 96 people, and to .43 with 300 and
# per-image normalisation (one run each, with version 1's other constants).
VIDEOS_PER_PERSON = 1.0

# ---- Resting faces: what one frame cannot tell from an expression --------------------------------
REST_TRAITS = 1.4  # traits a person has on average, of people.REST_BANK
REST_STRENGTH = (0.2, 0.5)  # of the bank's intensities; near the prototypes' own on purpose
EXPRESSIVENESS = (0.9, 1.1)  # how strongly a person shows what is felt

# ---- Episodes ------------------------------------------------------------------------------------
BLEND = (0.55, 1.0)  # how strong each part of a compound is at its apex
CLEAR_SHARE = 0.9  # episodes that show their own prototype alone
CONFUSED = (0.5, 0.65)  # own part of the others; the rest is a look-alike's prototype
STRENGTH = (0.9, 1.0)  # apex intensity of an episode
STILL_STRENGTH = (0.6, 1.0)  # of an image: not all are taken at the apex
LONG = (9, 24)  # frames of a lasting episode
SHORT = (5, 8)  # frames of one in a bout: shorter than a filter that would help the long ones
BOUT_SHARE = 0.35  # chance that an episode is a bout of rapid alternations with Neutral
BOUT_EPISODES = (2, 4)
NEUTRAL = (4, 11)  # frames of rest between episodes: the person's own yardstick
RUN = 50  # a theme lasts about this long: several episodes that explain one another
ANNOTATION_LAG = (2, 4)  # frames by which a video's annotator is late: people need time to react
BORDER_JITTER = 1  # frames by which each border is misplaced besides

# ---- Movement ------------------------------------------------------------------------------------
TREMOR = 0.3  # frame-to-frame flutter of fear, share of its intensity
REHEARSED_PERIOD = (9, 15)  # frames of the swell of a put-on expression, which is Other
REHEARSED_SHARE = 0.2  # of the Other episodes
AU_WANDER = 0.05  # slow idle movement of each unit
BROW_FLASH = 0.02  # chance a frame that a Neutral or Other speaker flashes the brows
SPEECH_JAW = (0.4, 0.25)  # lips parting and jaw drop at a syllable's peak: looks like AU25, AU26

# ---- What the camera adds --------------------------------------------------------------------
SHIFT = 1.8  # pixels, standard deviation of the aligner's slow error
ROTATION = 3.5  # degrees
SCALE = 0.035  # log
TURN = 0.12  # yaw and pitch, in units of the drawing (1 = strongly turned)
SENSOR_NOISE = (1.0, 4.0)  # grey levels, standard deviation
BLUR = (0.2, 0.8)  # pixels, standard deviation of the scene's blur
DEFOCUS_SHARE = 0.06  # of the frames, in stretches, lose the focus ...
DEFOCUS = 2.4  # ... by this much more
SMALL_FACE = (80, 112)  # side at which the face was filmed before it was enlarged to the crop
JPEG_QUALITY = (45, 92)
OCCLUSION_SHARE = 0.08  # of the frames, in stretches: a hand or a thing before the face
OCCLUSION_LENGTH = (8, 30)

# ---- Sound and words ---------------------------------------------------------------------------
SOUND_RATE = 16000  # Hz, what speech models take
VOICE_SHARE = 0.75  # bouts of speech together; those that overlap or are cut leave half of it
ROOM_NOISE = (0.002, 0.02)  # of full scale
BREATHS = 0.12  # a frame, at rest
BREATH_PACE = 1.0  # log of their number, per unit of arousal
BREATH_LEVEL = 0.015  # of full scale
BREATH_GAIN = 3.0  # log of their level, per unit of arousal
WORD_OF_EXPRESSION = 0.6  # chance that a word belongs to the expression and not to everyone

# ---- Irregular corpora -------------------------------------------------------------------------
GAP_SHARE = 0.06  # frames whose face was not found, in stretches and singly
INVALID_SHARE = 0.03  # rows that annotators could not decide (-1, -5)

# ---- Mimicry -------------------------------------------------------------------------------------
CLIP_RATE = 6  # frames a second
HIDDEN = (0.2, 0.15)  # chance that the face and the voice show little of the emotions
STATED = (0.5, 1.3)  # how strongly a modality states each emotion
SLIP_SHARE = 0.25  # clips in which a modality shows an emotion that nobody voted for
WORD_OF_EMOTION = 0.2  # chance that a word belongs to an emotion all vote for
SMALL_TALK = 0.4  # clips whose words belong to none
UNHEARD = 0.1  # clips with a voice of which no word was recognised
