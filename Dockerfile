# The image of every process of ours; docker-compose.yml says which one a container runs.

FROM python:3.12-slim AS build

# The build of torch: cpu, or one for a GPU, such as cu126, cu128 or cu130 (several GB more).
ARG TORCH_BACKEND=cpu
ENV UV_TORCH_BACKEND=$TORCH_BACKEND UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_CACHE=1

RUN pip install --no-cache-dir --disable-pip-version-check --quiet 'uv>=0.8,<1' \
    && python -m venv --without-pip /opt/everkept
ENV VIRTUAL_ENV=/opt/everkept

# What we depend on comes first: this layer stays while only our own code changes.
WORKDIR /source
COPY pyproject.toml ./
RUN uv pip install --quiet -r pyproject.toml --extra model

COPY README.md LICENSE ./
COPY api_stub ./api_stub
COPY indexer ./indexer
COPY ingest ./ingest
COPY memory ./memory
COPY workers ./workers
RUN uv pip install --quiet --no-deps .

FROM python:3.12-slim

RUN groupadd --gid 10001 memory \
    && useradd --uid 10001 --gid memory --home-dir /var/lib/memory --no-create-home --shell /usr/sbin/nologin memory \
    # A new volume takes the owner and the mode of the directory it is mounted on.
    && install --directory --owner memory --group memory --mode 0700 /var/lib/memory /var/lib/memory/index \
        /var/lib/memory/models

COPY --from=build /opt/everkept /opt/everkept

# PYTHONSAFEPATH: a file in the working directory never stands in for a module.
ENV PATH=/opt/everkept/bin:$PATH \
    MEMORY_HOME=/var/lib/memory \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1

# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
WORKDIR /var/lib/memory
VOLUME /var/lib/memory
CMD ["memory", "--help"]
