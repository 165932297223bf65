"""What a card says of data and law, whatever was measured."""

from __future__ import annotations

LIMITS = {
    "fer2013": (
        "FER2013 was gathered by an image search for emotion words; its labels are what annotators saw in a still "
        "face, not what a person felt, and many are disputed: people agree with them on about 65 % of the images "
        "(Goodfellow et al., arXiv:1307.0414).",
        "It names neither age, sex nor skin colour, so that differences in error between groups of people could not be "
        "measured here; expect them.",
        "Faces are gray, 48x48, roughly centred and cut to the face: other crops, profiles, masks or camera angles are "
        "outside what it was trained and tested on.",
    ),
    "demo": ("The faces are drawn by this program: nothing here says anything about people.",),
}
EUROPE = (
    "Inferring emotions of people at work and in education is prohibited by Article 5(1)(f) of Regulation (EU) "
    "2024/1689 since 2 February 2025, except for medical or safety reasons.",
    "Elsewhere, a system that is to infer emotions may be a high-risk one (Annex III, point 1(c)).",
    "Who deploys one is to inform the people exposed to it (Article 50(3)), and processes their data under the law of "
    "data protection.",
)
ORIGIN = {
    "fer2013": (
        "FER2013 comes of a web image search, made by P. L. Carrier and A. Courville for a Kaggle contest of 2013 "
        "(arXiv:1307.0414), and was given out under the contest's rules. Rights in the pictures remain with whoever "
        "made them, and nothing says that the people in them agreed: read the terms of your copy before the model is "
        "used for more than research.",
    ),
    "demo": ("The faces are drawn by this program, and come under its licence.",),
}
OTHER_ORIGIN = ("Where the pictures come from, and under what terms, is not known here.",)
OTHER = ("Nothing is known here about how the data were gathered; look at them before the model is used.",)
