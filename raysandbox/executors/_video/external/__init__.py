"""Scripts of another environment: EasyAnimate v1."""
