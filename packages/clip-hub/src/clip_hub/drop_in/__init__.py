"""What the names of `clip_hub.open_clip` do: the calls of OpenCLIP 3.3.0 on clip-core's models and clip-hub's registry.

The names themselves are in `clip_hub.open_clip`, file by file as OpenCLIP has them. They are apart because that package
may also be placed under the name `open_clip`: its files then run twice, and the classes here are still the same ones.
"""
