"""nginx, one worker: the limit of what a proxy can do, and its limit_req."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

from benchmarks.gateways.peer import SECRET, Launch, bearer

if TYPE_CHECKING:
    from benchmarks.gateways.peer import Limits, Place

WHERE = "/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
CONFIG = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {zone}
  upstream provider {{
    server 127.0.0.1:{upstream};
    keepalive 2048;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    client_body_buffer_size 64k;
    location / {{
      {limit}
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer {secret}";
    }}
  }}
}}
"""
ZONE = "limit_req_zone $http_authorization zone=keys:10m rate={rpm}r/m;"
LIMIT = "limit_req zone=keys burst={burst} nodelay; limit_req_status 429;"


class Nginx:
    """Its row: requests alone, as a leaky bucket; it knows no tokens."""

    @property
    def name(self) -> str:
        command = [_path(), "-v"]
        asked = subprocess.run(command, check=True, capture_output=True, text=True)
        return f"nginx {asked.stderr.strip().rpartition('/')[2]}"

    def missing(self) -> str:
        return "" if _path() else "nginx: not installed"

    def launch(self, place: Place, limits: Limits) -> Launch:
        zone = ZONE.format(rpm=limits.rpm) if limits.bind else ""
        limit = LIMIT.format(burst=limits.rpm - 1) if limits.bind else ""
        config = place.folder / "nginx.conf"
        config.write_text(
            CONFIG.format(
                folder=place.folder,
                port=place.port,
                upstream=place.upstream,
                zone=zone,
                limit=limit,
                secret=SECRET,
            )
        )
        return Launch(
            argv=[_path(), "-p", str(place.folder), "-c", str(config)],
            callers=[bearer(number) for number in range(place.keys)],
        )


def _path() -> str:
    return shutil.which("nginx", path=WHERE) or ""
