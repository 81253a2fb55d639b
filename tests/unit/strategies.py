"""What hypothesis draws from in several tests."""

from hypothesis import strategies as st

from mpcompile.ir.grid import Grid, half_integer, odd, sign_magnitude, twos_complement, unsigned


@st.composite
def grids(draw) -> Grid:
    """Any row of the table."""
    bits = draw(st.integers(1, 8))
    narrow = draw(st.booleans()) and bits > 1
    zero = draw(st.integers(-300, 300))
    return draw(
        st.sampled_from(
            [
                unsigned(bits),
                unsigned(bits, zero, narrow=narrow),
                twos_complement(bits, narrow=narrow),
                twos_complement(bits, zero),
                odd(bits),
                sign_magnitude(bits),
                half_integer(bits, 2 * zero + 1, narrow=narrow),
                half_integer(bits, 2 * zero + 1, signed=True),
            ]
        )
    )
