// What every view uses. A view imports from here only.
export * from './lib-base.js';
export * from './lib-format.js';
export * from './lib-api.js';
export * from './lib-stream.js';
export * from './lib-ui.js';
export * from './lib-table.js';
