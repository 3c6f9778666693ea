"""A note on the evaluation of generative models (Theis et al., 2016), and other papers on scores that mislead."""
