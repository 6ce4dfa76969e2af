# The hub in a container. Alone it runs its embedded server on the volume /data; with
# HUB_REDIS_URL it uses that Redis, see docker-compose.yml.

FROM python:3.13-slim AS build
WORKDIR /src
COPY . .
# The build fetches the page's libraries with Node.js from PyPI; neither ends up in the image.
RUN python -m venv /opt/hub \
 && /opt/hub/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin hub \
 && install -d -o hub -g hub -m 700 /data
COPY --from=build /opt/hub /opt/hub
ENV PATH=/opt/hub/bin:$PATH
ENV PYTHONDONTWRITEBYTECODE=1
ENV HUB_HOST=0.0.0.0
ENV HUB_PORT=8000
ENV HUB_DATA_DIR=/data
USER hub
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "import os, urllib.request; e = os.environ.get; base = e('HUB_BASE_PATH', '').strip('/'); host = e('HUB_HOSTS', '').split(',')[0].strip(); urllib.request.urlopen(urllib.request.Request(f'http://127.0.0.1:{e(\"HUB_PORT\")}/{base and base + \"/\"}healthz', headers={'Host': host or 'localhost'}), timeout=2)"]
ENTRYPOINT ["hub"]
CMD ["serve"]
