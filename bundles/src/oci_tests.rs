//! Whole configurations, compared with the files in `testdata`, and what is true of all of them.
