"""An end-to-end demonstration: a load makes a map stale, and the pipeline's next step makes it fresh."""
