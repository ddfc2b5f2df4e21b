"""The data plane: uvloop protocols on both sides, llhttp for heads, our own strict body framing."""
