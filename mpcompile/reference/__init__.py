"""The slow, readable numpy definition of every operator on integer codes; every kernel equals it bit for bit."""
