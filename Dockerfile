FROM python:3.13-slim AS build
WORKDIR /src
COPY requirements/service.txt requirements/
RUN python -m venv /opt/scaivault \
 && /opt/scaivault/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements/service.txt
COPY pyproject.toml README.md LICENSE ./
COPY domain domain
COPY application application
COPY projections projections
COPY interfaces interfaces
RUN /opt/scaivault/bin/pip install --no-cache-dir --no-deps --no-build-isolation .

FROM python:3.13-slim
COPY --from=build /opt/scaivault /opt/scaivault
RUN useradd --uid 10001 --create-home scaivault
USER scaivault
EXPOSE 8443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/scaivault/bin/scaivault"]
CMD ["serve"]
