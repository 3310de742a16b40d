# An image of the agent. The base is an argument, so that your own image with Python and your flows' packages can carry
# it too: docker build --build-arg BASE=your/image . (it needs Node.js 24.15 or newer and a Debian-like system).
ARG BASE=node:24-slim

FROM ${BASE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY . .
RUN sh scripts/build \
 && npm prune --omit=dev --ignore-scripts --no-audit --no-fund \
 && rm -rf node_modules/.ready node_modules/.cache

FROM ${BASE}
# tini is process 1: it hands signals on and collects what flows leave behind, which Node does not. git and ssh fetch
# flow code. A base that has them, or a mirror of its own: --build-arg PACKAGES=
ARG PACKAGES="ca-certificates git openssh-client tini"
RUN if [ -n "${PACKAGES}" ]; then apt-get update \
 && apt-get install -y --no-install-recommends ${PACKAGES} \
 && rm -rf /var/lib/apt/lists/*; fi \
 && command -v tini >/dev/null
# A number for the user, because Kubernetes can see from it alone that it is not root.
RUN echo 'rigel:x:10001:10001::/var/lib/rigel:/bin/sh' >>/etc/passwd \
 && echo 'rigel:x:10001:' >>/etc/group \
 && mkdir -p /var/lib/rigel && chown 10001:10001 /var/lib/rigel && chmod 700 /var/lib/rigel
COPY --from=build /build/package.json /build/LICENSE /build/CHANGELOG.md /opt/rigel/
COPY --from=build /build/bin /opt/rigel/bin
COPY --from=build /build/config /opt/rigel/config
COPY --from=build /build/dist /opt/rigel/dist
COPY --from=build /build/node_modules /opt/rigel/node_modules
RUN ln -s /opt/rigel/bin/rigel.js /usr/local/bin/rigel
ENV HOME=/var/lib/rigel RIGEL_STATE_DIR=/var/lib/rigel/state RIGEL_STATUS_PORT=4280
USER 10001:10001
WORKDIR /var/lib/rigel
# The journal: without a volume, a container that is replaced forgets the runs that it held.
VOLUME ["/var/lib/rigel"]
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s \
  CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$RIGEL_STATUS_PORT; printf 'GET /live HTTP/1.0\\r\\n\\r\\n' >&3; read -r _ code _ <&3; [ \"$code\" = 200 ]"]
ENTRYPOINT ["tini", "--", "rigel"]
CMD ["agent", "start"]
