"""What the pictures show, and how to read them: their captions, with fields in braces."""

from __future__ import annotations

#: Of the GED's terms.
ENERGY = (
    "GED split into overlap and diversity (after Generalized PU-Net, Fig. 3). A bar is as long as 2 E d(s,y), "
    "twice the mean distance between a sample and a rater. Taking away how far the raters are apart, E d(y,y'), "
    "and how far the samples are apart, E d(s,s'), leaves the GED. A model's samples are near the raters where "
    "its bar is short, and as diverse as the raters where the first two parts are equally long. Means over the "
    "cases. Self-pairs count, so that few raters, or few samples, look less diverse than many."
)
#: Of letter values; {title} is the figure.
LETTERS = (
    "{title} of the single cases as letter values (Hofmann, Wickham and Kafadar 2017): the line is the median, "
    "the highest box holds the middle half of the cases, each thinner one half of what is left on both sides, as "
    "far out as so many cases can tell; circles are the cases beyond. A mean hides whether a few cases are very "
    "wrong; here they show."
)
#: Of other letter values, where some stand above.
LETTERS_AGAIN = "{title} of the single cases, as letter values too: a line, boxes and circles as above."
#: Of other classes' reliability diagrams, where one stands above.
RELIABILITY_AGAIN = "Reliability{of_class}, to be read as above."
#: Of a reliability diagram; {of_class} names its class, where there are several.
RELIABILITY = (
    "Reliability{of_class}: pixels are sorted into bins by the probability that the model gives them, the mean "
    "over its samples; a point shows what share of the raters drew them. On the dotted diagonal the two agree; "
    "below it the model gives too high a probability, above it too low a one. In the lower panel: how many pixels "
    "are in each bin (logarithmic), of all cases together. Bins of few pixels are uncertain, and most pixels are "
    "background near 0, so a mean over pixels looks better than the curve."
)
#: Of the presence's calibration.
PRESENCE = (
    "Presence: every case is a forecast, of class maps every class of it, of whether there is anything to draw. "
    "Forecasts are sorted into bins by the share of samples that show something; a point shows what share of the "
    "raters drew something there. Below the dotted diagonal the model draws something more often than the raters do. "
    "In the lower panel: how many forecasts are in each bin (logarithmic)."
)
#: Of the areas' coverage.
COVERAGE = (
    "Area calibration: how many of the raters' areas lie inside the central interval of the samples' areas, "
    "against the level of that interval. Below the dotted diagonal the samples differ too little in size, or lie "
    "beside the raters; above it they differ too much."
)
#: Of the areas; {unit}, and {shown} says how many cases are drawn.
AREAS = (
    "Area in {unit}: a point is a case, the mean of its samples' areas against the mean of its raters'; the bar "
    "reaches from the 5 % to the 95 % quantile of the samples. On the dotted diagonal the mean is right; where "
    "not even the bar reaches it, the samples miss the raters' mean. Both axes grow with the square root.{shown}"
)
#: What risk and doubt are, in both curves.
_RISK = "The risk of a case is 1 - Dice of the mean prediction, its doubt the diversity of the samples. "
#: Of the risk-coverage curve.
RISK_COVERAGE = (
    f"Risk and coverage: {_RISK}The cases that the model doubts least are kept, and the mean risk of those is drawn "
    "against their share. A curve that falls to the left says that the model knows where it is wrong. Thin and "
    "dotted: cases kept at random; thin and dashed: an oracle, which drops the truly worst cases first."
)
#: Of the second-read curve.
SECOND_READ = (
    f"Second read: {_RISK}The cases that the model doubts most are read again by a second reader, and the mean risk of "
    "all cases is drawn against the share that was read. In those, the risk is that of one rater against another "
    "(0 where there is one rater), so the right end shows how well raters agree. The faster it falls, the more "
    "the reading of doubtful cases is worth. Thin and dotted: as many cases chosen at random; thin and dashed, "
    "where there is one: an oracle, which chooses the truly worst."
)
#: Of the effective rank over training.
RANK = (
    "Effective rank of the prior over the training: exp of the entropy of its standard deviations, each divided "
    "by their sum; 1 where one axis has all the spread, the latent dimension where all axes have the same. Mean "
    "over the validation images. A rank that falls towards 1 tells of a latent space that collapses."
)
#: Of the Gini index over training.
GINI = (
    "Gini index of the prior's standard deviations over the training: 0 where all axes have the same spread, near "
    "1 where one has all of it. Mean over the validation images."
)
#: Of the losses; {part} of the data.
LOSS = (
    "Loss of the {part} by epoch. Losses of different models are different sums, so their heights do not compare; "
    "look at whether a curve has levelled off, and whether the validation's turns up again."
)
#: Of the GED over training.
VALIDATION_GED = (
    "GED of the validation images by epoch, of fewer samples than the evaluation's as a rule: for the course of "
    "it, not for its height."
)
#: Of the prior's boxes; {model}, {cases}, and {runs} says which training.
LATENT = (
    "The prior of {model} over {cases} cases: above, its mean in each latent dimension; below, its standard "
    "deviations along its principal axes, from the first to the last. The line is the median over the cases, the "
    "box their middle half. A dimension whose mean moves tells images apart; along an axis with a large deviation "
    "the samples of one image may differ.{runs}"
)
