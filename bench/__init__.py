"""Speed, measured against baselines in the same run. `python -m bench` writes build/bench.json."""
