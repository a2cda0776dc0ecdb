"""A demonstration of the whole way: a load makes a map stale, the pipeline's next step makes it fresh."""
