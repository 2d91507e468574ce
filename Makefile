# The same as ./run, for those whose fingers say make.
.PHONY: demo test check
demo test check:
	./run $@
