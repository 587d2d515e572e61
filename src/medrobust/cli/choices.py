"""What options may be set to, for help texts: the tables themselves would load torch. A test holds the two together."""

ATTACKS = (
    "auto, fgsm, bim, mifgsm, transferable, pgd, cw, cw-l2, apgd, apgd-margin, deepfool, fmn, fab, ead, sigma-zero, "
    "square, simba, simba-dct, one-pixel, genattack, pso, cma-es, hopskipjump, cgba, rays"
)
BOUNDS = "ibp, crown-ibp, crown"
CHANGES = "patch, patch-anywhere, spatial, bias-field, exposure"
DETECTORS = "kd, kd-likelihood, lid, dfeat, qfeat, qfeat-scale, mahalanobis, softmax"
EVASIONS = "selective, orthogonal, penalised, matching, hfc, confident"
HARDENING = "pgd, trades, mart, fast, free, dual"
INPUT_DEFENCES = "bits, jpeg, median, resize, noise, flips"
MEASURES = (
    "slope-l1, slope-l2, loss, saliency-gini, saliency-half, margin, margin-slope, linear-eps, curvature, "
    "rise-gradient, rise-random, integrated-gini, integrated-half, smooth-gini, smooth-half, cam-half, effective-rank, "
    "relative-rank, spectral-entropy, spatial-entropy"
)
OPTIMISERS = (
    "random, ga, pso, de, shade, cma-es, sep-cma-es, gwo, woa, abc, aco-r, cs, fa, ba, sa, hs, gsa, bbo, tlbo, mfo, "
    "pso-ga, gwo-pso, pso-abc, bbo-pso"
)
UNIVERSAL = "sim, sgd, sga, df, gd, trm, psp, simba, tile"
