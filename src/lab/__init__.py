"""The lab: a page in the browser that moves thresholds, and draws and scores what they give."""
