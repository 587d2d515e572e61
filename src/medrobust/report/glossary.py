"""The words of the report for readers who are no engineers. docs/glossary.md holds the same sentences, and more."""

from __future__ import annotations

GLOSSARY = {
    "Adversarial attack": ("A small, calculated change of an image that makes a classifier give a wrong answer."),
    "AUROC": (
        "Area under the receiver operating characteristic curve: how well the scores rank diseased above "
        "healthy images; 0.5 is guessing, 1 is perfect."
    ),
    "Balanced accuracy": (
        "The mean of the accuracies within each class, so that a frequent class does not hide a rare one."
    ),
    "Bit depth": "How finely brightness is stored: 8 bits hold 256 steps, 12 bits 4,096, 16 bits 65,536.",
    "Bias field": (
        "A smooth change of brightness over the image, as from uneven exposure; here chosen by an attacker."
    ),
    "Black box": "An attacker who sees only the model's answers, not its inside.",
    "Brier score": "Mean squared distance between the model's probabilities and the truth; 0 is best.",
    "Calibration": (
        "Whether a confidence of 80 % is right 80 % of the time. ECE, the expected calibration error, is "
        "the mean gap; 0 is best."
    ),
    "Classifier": ("A program that sorts an image into one of several classes, for example normal and pneumonia."),
    "Confidence interval": (
        "The range in which the true value plausibly lies, given how few or many images were measured; "
        "here always 95 %. Images of one patient count as far as they agree: where all do, a patient counts once. "
        "Of a median of fewer than 6 images there is no interval."
    ),
    "Control": (
        "The same measurement with random noise instead of an attack, to tell the aim of a change from its size."
    ),
    "Epsilon (ε)": (
        "The largest change an attack may make to any pixel, here counted in grey levels (/255: of 8 bits)."
    ),
    "ε* (epsilon star)": "The smallest ε on the tested grid at which one particular image is fooled.",
    "False alarm": "A healthy image that is read as diseased.",
    "Flip": "An image that was read correctly and is read as another class after the attack.",
    "Fooling rate": (
        "The share of images that get another answer with a universal perturbation than without, right or wrong before."
    ),
    "Grad-CAM": ("A map of which regions of an image speak for the model's answer, as seen by one of its last layers."),
    "Gradient": (
        "The direction in which each pixel must change to alter the model's answer fastest; most "
        "white-box attacks follow it."
    ),
    "Grey level": (
        "One step of brightness as it is stored: 8 bits have 256, from 0 (black) to 255 (white), 12 bits 4,096."
    ),
    "Inconclusive": (
        "The attack could not do its work (for example, it found no gradient) or failed a sanity check; "
        "its number proves nothing either way."
    ),
    "Linf norm": (
        "The size of a change measured at the pixel that changes most. The L2 norm measures all pixels together."
    ),
    "Loss, loss landscape": (
        "How wrong the model is about an image, in nats: 0.01 is sure and right, 0.69 undecided between two classes. "
        "The landscape is the loss around an image."
    ),
    "Missed disease": "A diseased image that is read as healthy.",
    "Natural corruption": (
        "A change that happens to images without anybody's intent: noise, blur, compression, a dark exposure."
    ),
    "Operating point": (
        "The threshold at which a score becomes a diagnosis. It is the same before and after the attack."
    ),
    "Patch": "A small square of an image, such as a marker, whose pixels an attacker may choose freely.",
    "Phantom": "An image drawn by a program to look like a medical one. It shows no patient.",
    "Sanity check": ("A test of the audit itself: something that must hold if the attack numbers can be believed."),
    "Sensitivity": "Of the images with a disease, the share that the model recognises.",
    "Specificity": "Of the images without that disease, the share that the model leaves free of it.",
    "Headline number": (
        "The accuracy that is left at one size of change under an ensemble of attacks with nothing to tune, together "
        "with all others that were tried: an upper bound."
    ),
    "Query": "One image sent to a model whose scores come back. An attack without gradients is counted in queries.",
    "Universal perturbation": (
        "One single change that is computed once and then fools the model on most images to which it is added."
    ),
    "White box": "An attacker who knows the model completely: the most that can be known.",
    "Worst case": "For each image, whichever of the attacks needed the smallest change. The number to go by.",
}
