"""Eight gauges of one river, whose squared errors differ in scale by a factor of five thousand."""
