"""The stages of a recipe, a module each: `run(context) -> dict` with the keys

score     the stage's own figure on `split`, None where it has none
split     which split it was taken on
split_hash  of the labels scored (`confidence.split_hash`), where the score is the system's
metrics   more figures by name
samples   how many frames (or images) they were taken over
content   hash of what was made, where the config alone does not determine it
"""
