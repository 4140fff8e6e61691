"use strict";
const box = document.getElementById("show-recorded");
const cells = document.querySelectorAll(".truth");
const show = () => cells.forEach((cell) => { cell.hidden = !box.checked; });
document.getElementById("toggle").hidden = false;
box.addEventListener("change", show);
show();
