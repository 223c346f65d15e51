"""Every figure of a run, two runs compared, and the rule for a champion."""
