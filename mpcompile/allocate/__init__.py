"""Bits for every layer by an integer program: the least sum of losses under budgets of latency, bytes and BitOps. After
training and in a search alike; numpy, and scipy where it solves."""
