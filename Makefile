# The two commands, and the same verbs that CI runs. Nothing here but calls of scripts/.
PYTHON ?= python3

demo:            ## set up, start a server, answer a mixed-task batch
	$(PYTHON) scripts/demo.py

test:            ## set up, run every check and test
	$(PYTHON) scripts/test.py

format:          ## format the code in place
	$(PYTHON) scripts/format.py

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

.PHONY: demo test format help
