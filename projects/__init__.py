"""One room a paper: the only place that knows that paper's idea."""
