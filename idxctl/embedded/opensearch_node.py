"""
Run one OpenSearch node inside this Python process: the child of `idxctl.embedded.opensearch`, not to be imported.

    opensearch_node.py SPEC    SPEC: a JSON file written by the parent

The node is made with `Node`'s protected constructor, which takes plugins from the class path and does no bootstrap, so
there is no root check and no installation. SIGTERM closes the node. Once it answers, its port stands in ``port_file``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import jpype

spec: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
for inherited in ("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS"):
    os.environ.pop(inherited, None)
# The JVM's threads inherit it, so that the signal is left for sigwait.
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
jpype.startJVM(spec["jvm"], *spec["options"], classpath=spec["classpath"])

Settings = jpype.JClass("org.opensearch.common.settings.Settings")
InternalSettingsPreparer = jpype.JClass("org.opensearch.node.InternalSettingsPreparer")
Node = jpype.JClass("org.opensearch.node.Node")
PluginInfo = jpype.JClass("org.opensearch.plugins.PluginInfo")
Version = jpype.JClass("org.opensearch.Version")
HttpServerTransport = jpype.JClass("org.opensearch.http.HttpServerTransport")
ArrayList = jpype.JClass("java.util.ArrayList")
HashMap = jpype.JClass("java.util.HashMap")
Boolean = jpype.JClass("java.lang.Boolean")

settings = Settings.builder()
for key, value in spec["settings"].items():
    settings.put(key, value)
environment = InternalSettingsPreparer.prepareEnvironment(settings.build(), HashMap(), None, None)

plugins = ArrayList()
for name in spec["modules"]:
    if spec["plugin_classes"]:  # before 3.1 the constructor takes the classes themselves
        plugins.add(jpype.JClass(name).class_)
    else:
        plugins.add(PluginInfo(name, "module", "NA", Version.CURRENT, "21", name, ArrayList(), False))
(constructor,) = (c for c in Node.class_.getDeclaredConstructors() if c.getParameterCount() == 3)
constructor.setAccessible(True)
node = constructor.newInstance(environment, plugins, Boolean.TRUE)
node.start()

http = node.injector().getInstance(HttpServerTransport.class_)
port_file = Path(spec["port_file"])
beside = port_file.with_suffix(".new")
beside.write_text(str(http.boundAddress().publishAddress().getPort()), encoding="utf-8")
beside.replace(port_file)

signal.sigwait({signal.SIGTERM})
node.close()
os._exit(0)  # the JVM's own threads would keep the process
