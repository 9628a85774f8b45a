"""Those who are told what happens in a run. They are told, and have no say."""
