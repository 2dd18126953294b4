"""The parts of :func:`submissions.verify.verify`: archives, claims, the decoder's run, and pixels."""
