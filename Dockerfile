# The page in a container: on a CPU as it stands, on an NVIDIA GPU with
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 -t omnifusion .
#   docker run --gpus all -p 7860:7860 -v omnifusion:/data omnifusion
FROM python:3.12-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 1000 page && mkdir /data && chown page /data
WORKDIR /app

COPY requirements.txt .
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.8,<2.15" "torchvision>=0.23,<0.30" \
    && pip install --no-cache-dir -r requirements.txt

COPY app.py .
COPY omnifusion omnifusion
COPY assets assets

# Results, downloaded weights and compiled kernels outlive the container on /data.
ENV GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    HF_HOME=/data/hub \
    NUMBA_CACHE_DIR=/data/numba \
    OMNIFUSION_RESULTS=/data/results
VOLUME /data
USER page
EXPOSE 7860
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s \
    CMD ["python", "-c", "from urllib.request import Request, urlopen; urlopen(Request('http://127.0.0.1:7860/', method='HEAD'), timeout=8)"]
CMD ["python", "app.py"]
